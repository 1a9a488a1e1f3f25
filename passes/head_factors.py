"""Head factors: the few directions of a head that carry its scores, or its share of the output.

Scores are q kᵀ and outputs z Wo, with q, k and z of D channels a head. For any invertible D x D matrices
P and S with P Sᵀ = I, (q P) (k S)ᵀ is the same, and so is (z P) (P⁻¹ Wo): the choice is free, and when it is
made well, the first few columns of P do nearly all. This is COMCAT's head-wise factorization
(arXiv 2305.17235) of Wq Wkᵀ and Wv Wo, with its large products avoided: all that it takes are second
moments [D, D] a head of what flows through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from latentc.passes.weights import Floats

Wide: TypeAlias = NDArray[np.float64]

_DAMPING = 1e-6
"""Of the mean moment, on the diagonal, so that roots have inverses."""
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ScoreMoments:
    """What flows into scores: [H, D, D] each.

    Args:
        queries: the average q qᵀ.
        keys: the average k kᵀ with k centred over the tokens of its picture. What all keys share adds one
            number to all scores of a query, which the softmax does not see.
    """

    queries: Floats
    keys: Floats


@dataclass(frozen=True)
class ValueMoments:
    """What attention gives to one reader.

    Args:
        mean: [H · D].
        covariance: [H · D, H · D].
    """

    mean: Floats
    covariance: Floats


def score_factors(moments: ScoreMoments) -> tuple[Wide, Wide]:
    """Matrices for queries and keys, [H, D, D] each, whose first r columns are the best for width r.

    The best in the mean square of q kᵀ - (q P)(k S)ᵀ over queries and keys drawn apart from each other: an
    SVD of E[q qᵀ]^½ E[k kᵀ]^½ (Eckart and Young).
    """
    pairs = [_meeting(q, k) for q, k in zip(moments.queries, moments.keys, strict=True)]
    return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])


def score_loss(moments: ScoreMoments, queries: Wide, keys: Wide) -> float:
    """Mean square of q kᵀ - (q P)(k S)ᵀ over all heads, relative to that of q kᵀ.

    Args:
        moments: to judge by.
        queries: P [H, D, r].
        keys: S [H, D, r].
    """
    q, k = moments.queries.astype(np.float64), moments.keys.astype(np.float64)
    missed = np.eye(q.shape[1]) - queries @ keys.transpose(0, 2, 1)
    lost = np.einsum("hij,hik,hkl,hjl->", q, missed, k, missed, optimize=True)
    whole = np.einsum("hij,hij->", q, k)
    return max(0.0, float(lost / whole)) if whole > 0 else 0.0


def value_factors(
    moments: Sequence[ValueMoments], weights: Sequence[Floats], heads: int
) -> tuple[Wide, list[Wide]]:
    """P [H, D, D], whose first r columns are the best for width r, and the Gram matrices that it is best for.

    Args:
        moments: of each reader.
        weights: of each reader, [H · D, N].
        heads: H.

    Returns:
        P; and for each reader Wo Woᵀ of each head, [H, D, D], divided by the mean square of what it gives.
    """
    grams = [
        _blocks(weight, heads)
        @ _blocks(weight, heads).transpose(0, 2, 1)
        / max(_energy(known.covariance, weight), _TINY)
        for known, weight in zip(moments, weights, strict=True)
    ]
    covariance = np.mean([diagonal_blocks(known.covariance, heads) for known in moments], axis=0)
    gram = np.mean(grams, axis=0)
    return np.stack([_meeting(c, g)[0] for c, g in zip(covariance, gram, strict=True)]), grams


def value_loss(
    fit: Sequence[ValueMoments], held_out: Sequence[ValueMoments], grams: Sequence[Wide], factors: Wide
) -> float:
    """Mean square of what is lost of each reader's output when heads keep ``factors`` [H, D, r], relative.

    Each head is judged alone: a narrow head gives back what fits best on ``fit``, and ``held_out`` judges.
    """
    losses = []
    heads = len(factors)
    for known, judge, gram in zip(fit, held_out, grams, strict=True):
        blocks = zip(diagonal_blocks(known.covariance.astype(np.float64), heads), factors, strict=True)
        missed = np.stack([np.eye(len(c)) - p @ _regression(c, p) for c, p in blocks])
        spread = diagonal_blocks(judge.covariance, heads)
        losses.append(np.einsum("hji,hjk,hkl,hil->", missed, spread, missed, gram, optimize=True))
    return max(0.0, float(np.mean(losses)))


def regression(moments: ValueMoments, factors: Wide) -> Wide:
    """[H · r, H · D]: what gives z back best from the narrow heads z P, each from all of them."""
    return _regression(moments.covariance.astype(np.float64), block_diagonal(factors))


def regression_loss(moments: ValueMoments, weight: Floats, factors: Wide, back: Wide) -> float:
    """Mean square of z Wo - (z P) ``back`` Wo relative to that of z Wo, both centred."""
    whole = _energy(moments.covariance, weight)
    missed = (np.eye(len(back.T)) - block_diagonal(factors) @ back) @ weight
    return max(0.0, _energy(moments.covariance, missed) / whole) if whole > 0 else 0.0


def block_diagonal(factors: Wide) -> Wide:
    """[H, D, r] as one matrix [H · D, H · r]."""
    heads, width, narrow = factors.shape
    whole = np.zeros((heads, width, heads, narrow))
    whole[np.arange(heads), :, np.arange(heads)] = factors
    return whole.reshape(heads * width, heads * narrow)


def diagonal_blocks(matrix: Floats | Wide, heads: int) -> Wide:
    """The blocks [H, D, D] of a matrix [H · D, H · D] that lie on its diagonal."""
    width = len(matrix) // heads
    cut = matrix.reshape(heads, width, heads, width)
    return np.asarray(cut[np.arange(heads), :, np.arange(heads)], dtype=np.float64)


def _meeting(left: Floats | Wide, right: Floats | Wide) -> tuple[Wide, Wide]:
    """P and S [D, D] with P Sᵀ = I, columns sorted by what they carry of a · b, for these moments of both."""
    (left_root, left_inverse), (right_root, right_inverse) = _roots(left), _roots(right)
    u, sizes, v = np.linalg.svd(left_root @ right_root)
    shared = np.sqrt(sizes)
    ours, theirs = left_inverse @ (u * shared), right_inverse @ (v.T * shared)
    signs = np.where(np.take_along_axis(ours, np.abs(ours).argmax(axis=0)[None], axis=0) < 0, -1.0, 1.0)
    return ours * signs, theirs * signs


def _roots(moments: Floats | Wide) -> tuple[Wide, Wide]:
    """The symmetric square root of ``moments`` [D, D], damped, and its inverse."""
    wide = moments.astype(np.float64)
    damping = _DAMPING * max(float(np.trace(wide)) / len(wide), _TINY)
    sizes, vectors = np.linalg.eigh(wide)
    roots = np.sqrt(np.maximum(sizes, 0) + damping)
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _regression(covariance: Wide, factors: Wide) -> Wide:
    """(Pᵀ C P)⁺ Pᵀ C: what gives a back best from a P, [r, D]."""
    seen = factors.T @ covariance
    return np.asarray(np.linalg.pinv(seen @ factors, rcond=1e-9, hermitian=True) @ seen)


def _blocks(weight: Floats, heads: int) -> Wide:
    return weight.astype(np.float64).reshape(heads, len(weight) // heads, -1)


def _energy(covariance: Floats | Wide, weight: Floats | Wide) -> float:
    wide = weight.astype(np.float64)
    return float(np.vdot(covariance.astype(np.float64) @ wide, wide))
