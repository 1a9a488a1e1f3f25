"""The followed subspace against the singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from latentc.passes.scaled_subspace import ScaledSubspace

RANK = 8


@pytest.mark.parametrize(("K", "N"), [(96, 160), (160, 96), (6, 20)])
def test_it_keeps_nearly_what_the_best_of_its_rank_keeps(K: int, N: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.standard_t(5, (K, N)).astype(np.float32)
    peaks = np.exp(generator.standard_normal(K)).astype(np.float32)
    subspace = ScaledSubspace(weight, min(RANK, K, N))
    for power in (0.0, 0.05, 0.1, 0.15):
        scale = peaks**power
        scaled = weight * scale[:, None]
        right, left = subspace.factors(scaled, scale)
        assert right.shape == (K, min(RANK, K))
        assert left.shape == (min(RANK, K), N)
        sizes = np.linalg.svd(scaled.astype(np.float64), compute_uv=False)
        best = np.sqrt(np.square(sizes[RANK:]).sum())
        # noise has no gap between its singular values: the hardest case of all; float32 where nothing is left
        assert np.linalg.norm(scaled - right @ left) <= 1.002 * best + 1e-5 * np.linalg.norm(scaled)


def test_it_begins_the_same_way_each_time(seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((64, 80), dtype=np.float32)
    scale = np.ones(64, np.float32)
    one, two = (ScaledSubspace(weight, RANK).factors(weight, scale) for _ in range(2))
    assert [part.tobytes() for part in one] == [part.tobytes() for part in two]
