"""Scaled subspace: the largest directions of a weight under one scale of its rows after the other.

Subspace iteration, begun where the last scale left off. Of a weight that is wider than high only W Wᵀ is
needed, and that once for all scales: S W Wᵀ S is that of S W. As exact as comparing scales needs it.
"""

from __future__ import annotations

import numpy as np

from latentc.passes.weights import Floats

_SPARE = 16
"""Directions beside those asked for: the nearer the next singular value, the slower the iteration."""
_FIRST_ROUNDS = 12
_ROUNDS = 5
"""Enough for smooth to find the best of its scales among the first 6 in all layers of shapes-flux."""


class ScaledSubspace:
    """Follows the ``rank`` largest directions of ``weight`` [K, N] times scales."""

    def __init__(self, weight: Floats, rank: int) -> None:
        """Begin from a fixed start, which is far from any scale: the first takes more rounds."""
        K, N = weight.shape
        self._rank = rank
        self._gram = weight @ weight.T if K <= N else None
        side = min(K, N)
        self._basis = np.random.default_rng(0).standard_normal(
            (side, min(side, rank + _SPARE)), dtype=np.float32
        )
        self._rounds = _FIRST_ROUNDS

    def factors(self, scaled: Floats, scale: Floats) -> tuple[Floats, Floats]:
        """Nearly the best approximation of ``scaled``, which is weight · scale: right [K, R] and left [R, N].

        Args:
            scaled: [K, N].
            scale: [K], positive.
        """
        for _ in range(self._rounds):
            self._basis = np.linalg.qr(self._squared(self._basis, scaled, scale))[0]
        self._rounds = _ROUNDS
        inner = self._basis.T @ self._squared(self._basis, scaled, scale)
        self._basis = self._basis @ np.linalg.eigh(inner)[1][:, ::-1]
        directions = self._basis[:, : self._rank]
        if self._gram is None:
            return scaled @ directions, directions.T
        return directions, directions.T @ scaled

    def _squared(self, basis: Floats, scaled: Floats, scale: Floats) -> Floats:
        """``basis`` times the Gram matrix of the smaller side of ``scaled``."""
        if self._gram is None:
            return np.asarray(scaled.T @ (scaled @ basis))
        return np.asarray(scale[:, None] * (self._gram @ (scale[:, None] * basis)))
