"""Splitting along a subspace keeps the function, whatever the subspace is, and leaves little of the input."""

from __future__ import annotations

import numpy as np
import pytest

from latentc.passes.subspace import leading_subspace, split_along, subspace_bytes
from latentc.passes.weights import Floats


def rows_of(seed: int, count: int, K: int) -> Floats:
    """Rows whose spectrum falls by a factor of 30."""
    random = np.random.default_rng(seed)
    turned = np.linalg.qr(random.standard_normal((K, K)))[0]
    sizes = np.geomspace(1, 1 / 30, K)
    return np.asarray((random.standard_normal((count, K)) * sizes) @ turned, dtype=np.float32)


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_the_function_stays_for_what_is_stored(seed: int, rank: int) -> None:
    rows = rows_of(seed, 256, 64)
    weight = np.random.default_rng(seed).standard_normal((64, 48)).astype(np.float32)
    subspace = leading_subspace(rows.T @ rows / np.float32(256), rank)
    split = split_along(weight, subspace)
    along = (rows @ subspace.directions) @ (split.codes * np.float32(split.step))
    given = subspace.removed_from(rows) @ split.rest + along
    exact = rows.astype(np.float64) @ weight
    assert np.linalg.norm(given - exact) < 1e-5 * np.linalg.norm(exact)


def test_little_is_left_of_the_input(seed: int) -> None:
    rows = rows_of(seed, 512, 64)
    left = leading_subspace(rows.T @ rows / np.float32(512), 16).removed_from(rows)
    sizes = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
    # 1/16 of the strongest 16 directions stays, and int8 turns them by a percent
    best = np.sqrt(np.square(sizes[16:]).sum() + np.square(sizes[:16] / 16).sum())
    assert np.linalg.norm(left) < 1.05 * best


def test_moments_of_what_is_left(seed: int) -> None:
    rows = rows_of(seed, 512, 64)
    moments = rows.T @ rows / np.float32(512)
    subspace = leading_subspace(moments, 8)
    left = subspace.removed_from(rows).astype(np.float64)
    np.testing.assert_allclose(
        np.asarray(subspace.moments_left(moments), np.float64),
        left.T @ left / 512,
        atol=1e-5 * float(np.abs(moments).max()),  # sums of 512 in float32
    )


def test_directions_are_orthonormal_within_int8(seed: int) -> None:
    rows = rows_of(seed, 512, 64)
    directions = leading_subspace(rows.T @ rows, 8).directions
    # 64 entries, each off by up to half a step of 1/127 of the largest
    assert np.abs(directions.T @ directions - np.eye(8)).max() < 0.02


def test_bytes() -> None:
    assert subspace_bytes(64, 8) == 8 * 64 + 2 * 8 + 4
