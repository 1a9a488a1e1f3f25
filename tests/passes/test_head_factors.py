"""Head factors against float64 sums over drawn rows: exact at full width, the best at every other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.passes.head_factors import (
    ScoreMoments,
    ValueMoments,
    Wide,
    block_diagonal,
    diagonal_blocks,
    regression,
    regression_loss,
    score_factors,
    score_loss,
    value_factors,
    value_loss,
)

H, D = 3, 5


def rows(generator: np.random.Generator, count: int = 60) -> Wide:
    """[count, H, D], strong along some directions."""
    mixing = generator.standard_normal((H, D, D)) * 0.5 ** np.arange(D)[:, None]
    return np.asarray(np.einsum("nhd,hde->nhe", generator.standard_normal((count, H, D)), mixing))


def gram(value: Wide) -> np.ndarray:
    return np.asarray(np.einsum("nhd,nhe->hde", value, value) / len(value), dtype=np.float32)


@given(st.integers(0, 1000), st.integers(1, D))
def test_scores(seed: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    queries, keys = rows(generator), rows(generator)
    moments = ScoreMoments(gram(queries), gram(keys))
    ours, theirs = score_factors(moments)
    np.testing.assert_allclose(ours @ theirs.transpose(0, 2, 1), np.tile(np.eye(D), (H, 1, 1)), atol=1e-6)
    kept = ours[:, :, :width], theirs[:, :, :width]
    wanted = np.einsum("nhd,mhd->hnm", queries, keys)
    narrow = [np.einsum("nhd,hdr->nhr", value, one) for value, one in zip((queries, keys), kept, strict=True)]
    missed = wanted - np.einsum("nhr,mhr->hnm", *narrow)
    loss = np.sum(missed**2) / np.sum(wanted**2)
    assert score_loss(moments, *kept) == pytest.approx(loss, abs=1e-5)  # moments are float32
    sizes = np.linalg.svd(wanted, compute_uv=False) ** 2
    least = sizes[:, width:].sum() / sizes.sum()  # no matrices of that rank are nearer
    assert loss == pytest.approx(least, rel=1e-2, abs=1e-5)


def spread(value: Wide) -> ValueMoments:
    flat = value.reshape(len(value), -1)
    centred = flat - flat.mean(axis=0)
    return ValueMoments(
        flat.mean(axis=0).astype(np.float32), (centred.T @ centred / len(flat)).astype(np.float32)
    )


@given(st.integers(0, 1000), st.integers(1, D))
def test_values(seed: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    mixed = rows(generator) + 3
    weight = generator.standard_normal((H * D, 7)).astype(np.float32)
    moments = spread(mixed)
    factors, grams = value_factors([moments], [weight], H)
    kept = factors[:, :, :width]
    centred = (mixed - mixed.mean(axis=0)).reshape(len(mixed), -1)
    back = regression(moments, kept)
    missed = (centred - centred @ block_diagonal(kept) @ back) @ weight
    loss = np.sum(missed**2) / np.sum((centred @ weight) ** 2)
    assert regression_loss(moments, weight, kept, back) == pytest.approx(loss, abs=1e-5)
    alone = 0.0
    for head in range(H):
        cut = centred[:, head * D : head * D + D] @ weight[head * D : head * D + D]
        sizes = np.linalg.svd(cut, compute_uv=False) ** 2
        alone += sizes[width:].sum() / np.sum((centred @ weight) ** 2)
    seen = value_loss([moments], [moments], grams, kept)
    assert seen == pytest.approx(alone, rel=2e-2, abs=1e-5)  # Eckart and Young, head by head
    assert loss <= H * seen + 1e-5  # the heads' errors can add up, and no more than that
    if width == D:
        assert loss < 1e-9


def test_two_readers_with_other_tokens(seed: int) -> None:
    """Each has its own regression, so each is served no worse than by the other's."""
    generator = np.random.default_rng(seed)
    moments = [spread(rows(generator)), spread(rows(generator))]
    weights = [generator.standard_normal((H * D, 7)).astype(np.float32) for _ in range(2)]
    kept = value_factors(moments, weights, H)[0][:, :, :2]
    own, other = (regression_loss(moments[0], weights[0], kept, regression(one, kept)) for one in moments)
    assert own < other


@given(st.integers(1, 4), st.integers(1, 4))
def test_blocks_there_and_back(heads: int, width: int) -> None:
    blocks = np.arange(heads * width * width, dtype=np.float64).reshape(heads, width, width)
    np.testing.assert_array_equal(diagonal_blocks(block_diagonal(blocks), heads), blocks)


def test_nothing_flows() -> None:
    nothing = ScoreMoments(np.zeros((H, D, D), np.float32), np.zeros((H, D, D), np.float32))
    ours, theirs = score_factors(nothing)
    assert np.isfinite(ours).all()
    assert np.isfinite(theirs).all()
    assert score_loss(nothing, ours[:, :, :1], theirs[:, :, :1]) == 0
