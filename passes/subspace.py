"""Subspace: the directions in which an input varies most, kept apart from what is rounded.

    x w = (x - κ z Pᵀ) w' + z L        z = x P,  κ = 15/16

P [K, R] holds the leading eigenvectors of the input's second moments, so that what is left of x is small and
loses little when it is rounded (the idea of DiRotQ, arXiv 2605.16732). P and L are stored as int8, and the
equation holds exactly for what is stored. That is why κ is below 1: then I - κ P Pᵀ has an inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentc.passes.one_thread import one_thread
from latentc.passes.weights import SMALLEST_STEP, Floats

KEPT_APART = np.float32(15 / 16)
"""κ: what of z Pᵀ is taken out of x."""


@dataclass(frozen=True)
class Subspace:
    """P as it is stored: ``codes`` [K, R] from -127 to 127, and a step [R] for each direction."""

    codes: NDArray[np.int8]
    steps: NDArray[np.float16]

    @property
    def directions(self) -> Floats:
        """P, [K, R]; its columns are orthonormal within what int8 holds."""
        return self.codes.astype(np.float32) * self.steps.astype(np.float32)

    def removed_from(self, rows: Floats) -> Floats:
        """What is left of ``rows`` […, K]."""
        P = self.directions
        return np.asarray(rows - KEPT_APART * ((rows @ P) @ P.T), dtype=np.float32)

    def moments_left(self, moments: Floats) -> Floats:
        """Second moments [K, K] of what is left of an input with these ``moments``."""
        return self.removed_from(self.removed_from(moments).T).T


@dataclass(frozen=True)
class WeightSplit:
    """A weight along a subspace: ``codes`` [R, N] and ``step`` are L, ``rest`` [K, N] is w'."""

    codes: NDArray[np.int8]
    step: np.float16
    rest: Floats


def leading_subspace(moments: Floats, rank: int) -> Subspace:
    """The ``rank`` leading eigenvectors of ``moments`` [K, K]; the largest entry of each is positive."""
    with one_thread():
        vectors = np.linalg.eigh(moments.astype(np.float64))[1][:, ::-1][:, :rank]
    peaks = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    vectors = vectors * np.where(peaks < 0, -1, 1)
    steps = (np.abs(vectors).max(axis=0) / 127).astype(np.float16)
    codes = np.clip(np.rint(vectors / steps.astype(np.float64)), -127, 127).astype(np.int8)
    return Subspace(codes, steps)


def split_along(weight: Floats, subspace: Subspace) -> WeightSplit:
    """Split ``weight`` [K, N] so that the equation above holds for what is stored."""
    with one_thread():
        P = subspace.directions.astype(np.float64)
        wide = weight.astype(np.float64)
        along = P.T @ wide
        step = np.maximum(np.float32(np.abs(along).max() / 127), SMALLEST_STEP).astype(np.float16)
        codes = np.clip(np.rint(along / float(step)), -127, 127).astype(np.int8)
        left = wide - P @ (codes * np.float64(step))
        # (I - κ P Pᵀ)⁻¹ = I + P (I / κ - Pᵀ P)⁻¹ Pᵀ, by Woodbury's identity
        core = np.eye(P.shape[1]) / float(KEPT_APART) - P.T @ P
        rest = left + P @ np.linalg.solve(core, P.T @ left)
    return WeightSplit(codes, step, rest.astype(np.float32))


def subspace_bytes(K: int, rank: int) -> int:
    """Stored bytes of a subspace: codes, steps, and κ beside them."""
    return rank * K + 2 * rank + 4
