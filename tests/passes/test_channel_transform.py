"""A transform and its inverse cancel, and what was folded stays with the MatMul that reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.channel_transform import ChannelTransform, folded_before, note_folded
from latentc.passes.model_file import read_model, write_model
from latentc.passes.rotate import BlockHadamard
from latentc.passes.smooth import ChannelScale

GRAPH = "g (float[B,8] x) => (float[B,4] y) <float[8,4] w> { y = MatMul (x, w) }"


def transforms(K: int, seed: int) -> list[ChannelTransform]:
    factors = np.exp(np.random.default_rng(seed).normal(0, 2, K)).astype(np.float32)
    return [ChannelScale(factors), *(BlockHadamard(size) for size in (2, 4, 8))]


@given(st.integers(1, 4), st.integers(0, 1000))
def test_columns_times_rows_is_the_same_product(blocks: int, seed: int) -> None:
    K = 8 * blocks
    generator = np.random.default_rng(seed)
    array = generator.standard_normal((2, 3, K)).astype(np.float32)
    weight = generator.standard_normal((K, 5)).astype(np.float32)
    exact = array.astype(np.float64) @ weight
    for transform in transforms(K, seed):
        product = transform.columns(array).astype(np.float64) @ transform.rows(weight)
        np.testing.assert_allclose(product, exact, rtol=0, atol=1e-5)  # float32, some hundred sums


@given(st.integers(0, 1000))
def test_a_weight_takes_it_as_rows_do(seed: int) -> None:
    """(x · w) · T is x · (w · T): the reason why it can be folded."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((3, 6)).astype(np.float32)
    weight = generator.standard_normal((6, 8)).astype(np.float32)
    for transform in transforms(8, seed):
        first, second = transform.columns(x @ weight), x @ transform.columns(weight)
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-5 * float(np.abs(first).max()))


def test_what_was_folded_is_kept_by_copies_and_lost_in_files(tmp_path: Path) -> None:
    model = model_of(GRAPH)
    (node,) = model.graph
    assert folded_before(node, "some-pass") == ()
    scale, turn = transforms(8, 0)[:2]
    note_folded(node, scale, "smooth")
    note_folded(node, turn, "rotate")
    assert folded_before(node, "some-pass") == (scale, turn)
    (copied,) = model.clone().graph
    assert folded_before(copied, "some-pass") == (scale, turn)
    write_model(model, tmp_path)
    (written,) = read_model(tmp_path).graph
    with pytest.raises(PassError) as caught:
        folded_before(written, "some-pass")
    assert str(caught.value) == (
        "some-pass: 'y': its input was rewritten by smooth, rotate before the model was written, so recorded "
        "rows do not fit\nfix: run smooth, rotate and some-pass in one sequence of passes, or smooth, rotate "
        "with fold: false"
    )
