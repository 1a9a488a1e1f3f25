"""Low rank: the branch that leaves the smallest INT4 error behind, as it will be stored.

The branch takes the directions with the largest singular values out of a weight, so that what INT4 has
to hold is smaller (SVDQuant, arXiv 2411.05007, section 4.2). Like there, it is then refined against the
quantizer: fit the branch to what INT4 cannot hold, quantize the rest again, keep the best. What counts
is the weight, or, with recorded inputs, what the linear gives for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from latentc.passes.gptq import row_factor
from latentc.passes.moments import output_norm
from latentc.passes.one_thread import one_thread
from latentc.passes.rounding import Rounding, rounded_weight
from latentc.passes.weights import Floats
from latentc.recipes.choice import Choice

EXACT_SIDE = 512
"""Up to this smaller side the singular vectors are exact (an eigendecomposition of the Gram matrix in
float64); beyond, subspace iteration from a fixed start (Halko, Martinsson and Tropp 2011, algorithm 4.4):
1.0005 times the least residual."""
_OVERSAMPLED = 16
_ROUNDS = 4
_WARM_ROUNDS = 2
_DAMPING = 0.1  # of the mean moment: the best of 0.001, 0.01 and 0.1 on inputs that were not recorded
_PATIENCE = 1.02  # a refinement may be this much worse and the next one still be the best
_LEFT_STEP = np.float32(2.0**-7)
_PART = 1 << 20
"""Weights that a product is subtracted from at a time."""


class BranchType(Choice):
    """How the two small matrices are stored."""

    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(frozen=True)
class Branch:
    """right [K, R] and left [R, N] as stored, and the steps that turn codes into numbers.

    For float16 the matrices are the numbers and the steps are empty. For int8 they are codes from -127
    to 127, ``right_steps`` is [R] and ``left_step`` one number: each row of left is scaled to reach
    127, and its size moves into the column of right.
    """

    right: NDArray[np.generic]
    left: NDArray[np.generic]
    right_steps: NDArray[np.float16]
    left_step: NDArray[np.float16]

    def product(self) -> Floats:
        """Multiply right by left with the stored values, [K, N] float32."""
        right, left = self._factors()
        return np.asarray(right @ left, dtype=np.float32)

    def take_from(self, weight: Floats) -> None:
        """Subtract the product from ``weight`` [K, N] where it lies, a few MiB at a time."""
        right, left = self._factors()
        # along the axis that lies apart: the parts are whole pieces of memory
        if weight.flags.f_contiguous:
            weight, right, left = weight.T, left.T, right.T
        rows = max(1, _PART // weight.shape[1])
        for start in range(0, len(weight), rows):
            part = slice(start, start + rows)
            weight[part] -= right[part] @ left

    def outputs(self, rows: Floats) -> Floats:
        """What the branch gives for ``rows`` [M, K]: [M, N], by two thin products."""
        right, left = self._factors()
        return np.asarray((rows @ right) @ left, dtype=np.float32)

    def _factors(self) -> tuple[Floats, Floats]:
        right, left = self.right.astype(np.float32), self.left.astype(np.float32)
        if self.right_steps.size:
            right = right * self.right_steps.astype(np.float32)
            left = left * self.left_step.astype(np.float32)
        return right, left


def branch_bytes(K: int, N: int, rank: int, branch: BranchType) -> int:
    """Stored bytes of a branch of ``rank`` for a [K, N] weight."""
    return 2 * rank * (K + N) if branch is BranchType.FLOAT16 else rank * (K + N + 2) + 2


def largest_rank(K: int, N: int, group: int, branch: BranchType, max_ratio: float) -> int:
    """The largest rank with which codes, steps and branch take at most ``max_ratio`` of the fp16 bytes.

    Zero or less when codes and steps alone take that much.
    """
    free_bytes = int(max_ratio * 2 * K * N) - K * N // 2 - 2 * (K // group) * N
    return (free_bytes - branch_bytes(K, N, 0, branch)) // (
        branch_bytes(K, N, 1, branch) - branch_bytes(K, N, 0, branch)
    )


def fit_bytes(K: int, N: int, rank: int) -> int:
    """Memory that it takes at most to fit a branch of ``rank`` to a [K, N] weight, which lies elsewhere."""
    side = min(K, N)
    exact = 8 * (K * N + 4 * side * side) if side <= EXACT_SIDE else 0
    return exact + 6 * 4 * (rank + _OVERSAMPLED) * (K + N) + 3 * 4 * _PART


def low_rank_branch(
    weight: Floats,
    rank: int,
    branch: BranchType,
    group: int,
    refinements: int,
    moments: Floats | None = None,
    rounding: Rounding = Rounding.NEAREST,
) -> Branch:
    """The branch of ``weight`` [K, N] that was met with the least error of branch + int4(weight - branch).

    Args:
        weight: finite.
        rank: R, with 0 < R <= min(K, N).
        branch: how it will be stored.
        group: of the INT4 quantization to come.
        refinements: how often at most the branch is fitted again; it ends early when the error grows.
        moments: [K, K], the average x xᵀ of what the linear multiplies. With it the error is that of the
            linear's output, without it that of the weight.
        rounding: of the INT4 quantization to come; GPTQ needs moments.
    """
    with one_thread():
        damped = _damped(moments)
        rows = None if moments is None or rounding is not Rounding.GPTQ else row_factor(moments)

        def hold(way: Rounding, rest: Floats) -> Floats:
            return rounded_weight(rest, group, way, rows).floats()

        def lost(found: Branch) -> float:
            rest = weight - found.product()
            return _size(rest - hold(rounding, rest), damped)

        # What GPTQ leaves has less of a shape that a branch can take; which one to fit to is found out.
        ways = dict.fromkeys((Rounding.NEAREST, rounding))
        found = [_refined(weight, rank, branch, refinements, damped, partial(hold, way)) for way in ways]
        return found[0] if len(found) == 1 else min(found, key=lost)


def _refined(
    weight: Floats,
    rank: int,
    branch: BranchType,
    refinements: int,
    moments: Floats | None,
    hold: Callable[[Floats], Floats],
) -> Branch:
    # Without data the branch takes the largest directions of the weight first, and so shrinks what INT4
    # has to hold. With data it does better by beginning as a repair of what INT4 did to the outputs.
    lost = weight if moments is None else weight - hold(weight)
    fitted = _fit(lost, rank, moments, None)
    best = candidate = _stored(fitted, branch)
    least = np.inf
    for _ in range(refinements + 1 if refinements else 0):
        product = candidate.product()
        held = hold(weight - product)
        error = _size(weight - product - held, moments)
        if error < least:
            best, least = candidate, error
        elif error > _PATIENCE * least:
            break
        fitted = _fit(weight - held, rank, moments, fitted.subspace)
        candidate = _stored(fitted, branch)
    return best


def _damped(moments: Floats | None) -> Floats | None:
    """``moments`` with some of their mean on the diagonal, since a record of inputs is never complete."""
    if moments is None:
        return None
    mean = np.trace(moments) / len(moments)
    return np.asarray(moments + _DAMPING * mean * np.eye(len(moments)), dtype=np.float32)


def _size(error: Floats, moments: Floats | None) -> float:
    """‖error‖, or the root mean square that it adds to the outputs."""
    return float(np.linalg.norm(error)) if moments is None else output_norm(error, moments)


@dataclass(frozen=True)
class _Fit:
    """The best approximation of a matrix: right [K, R] and left [R, N], sizes shared out evenly.

    ``subspace`` [N, …] has orthonormal columns, those of left first, to start the next fit from.
    """

    right: Floats
    left: Floats
    subspace: Floats


def _fit(matrix: Floats, rank: int, moments: Floats | None, start: Floats | None) -> _Fit:
    """Fit rank R to ``matrix`` [K, N]; signs are fixed by a positive largest entry in each row of left.

    The rows of left are the leading right singular vectors of moments^½ · matrix; right is what ``matrix``
    gives along them. That is the least error with the moments as without, and needs no inverse.
    """
    subspace, along = _leading(matrix, rank, moments, start)
    basis, along = subspace[:, :rank], along[:, :rank]
    sizes = np.sqrt(_nonzero(np.linalg.norm(along, axis=0)))
    right = (along / sizes).astype(np.float32)
    left = (basis.T * sizes[:, None]).astype(np.float32)
    peaks = np.take_along_axis(left, np.abs(left).argmax(axis=1)[:, None], axis=1)[:, 0]
    signs = (1 - 2 * (peaks < 0)).astype(np.float32)
    return _Fit(right * signs, left * signs[:, None], subspace)


def _leading(
    matrix: Floats, rank: int, moments: Floats | None, start: Floats | None
) -> tuple[Floats, Floats]:
    """Right singular vectors of moments^½ · ``matrix`` [K, N] as columns, the ``rank`` leading ones first.

    With them ``matrix`` times these. From ``start``, an earlier subspace, few rounds of subspace iteration
    do: a refinement changes little.
    """
    K, N = matrix.shape
    width = min(K, N, rank + _OVERSAMPLED)
    if start is None and moments is None and min(K, N) <= EXACT_SIDE:
        subspace = _exact(matrix, width)
        return subspace, matrix @ subspace
    rounds = _WARM_ROUNDS
    if start is None:
        rounds = _ROUNDS
        start = np.random.default_rng(0).standard_normal((N, width), dtype=np.float32)
    subspace = np.linalg.qr(start)[0]
    for _ in range(rounds):
        seen = matrix @ subspace
        subspace = np.linalg.qr(matrix.T @ (seen if moments is None else moments @ seen))[0]
    seen = (matrix @ subspace).astype(np.float64)
    vectors = np.linalg.eigh(seen.T @ (seen if moments is None else moments @ seen))[1][:, ::-1]
    turned = np.asarray(subspace @ vectors.astype(np.float32), dtype=np.float32)
    return turned, np.asarray(seen @ vectors, dtype=np.float32)


def _exact(matrix: Floats, width: int) -> Floats:
    wide = matrix.astype(np.float64)
    if matrix.shape[0] >= matrix.shape[1]:
        vectors = np.linalg.eigh(wide.T @ wide)[1][:, ::-1][:, :width]
    else:
        across = np.linalg.eigh(wide @ wide.T)[1][:, ::-1][:, :width]
        vectors = np.linalg.qr(wide.T @ across)[0]
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _stored(fitted: _Fit, branch: BranchType) -> Branch:
    right, left = fitted.right, fitted.left
    empty = np.zeros(0, np.float16)
    if branch is BranchType.FLOAT16:
        return Branch(right.astype(np.float16), left.astype(np.float16), empty, empty)
    rows = _nonzero(np.abs(left).max(axis=1)) / (127 * _LEFT_STEP)
    left_codes = np.rint(left / rows[:, None] / _LEFT_STEP).astype(np.int8)
    sized = right * rows
    steps = _nonzero((_nonzero(np.abs(sized).max(axis=0)) / 127).astype(np.float16).astype(np.float32))
    right_codes = np.clip(np.rint(sized / steps), -127, 127).astype(np.int8)
    return Branch(right_codes, left_codes, steps.astype(np.float16), np.asarray(_LEFT_STEP, np.float16))


def _nonzero(sizes: Floats) -> Floats:
    return np.where(sizes > 0, sizes, np.float32(2.0**-14)).astype(
        np.float32
    )  # any positive step represents zeros
