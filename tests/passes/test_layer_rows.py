"""Recorded rows reach a linear through the nodes that passes put before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.channel_transform import note_folded
from latentc.passes.layer_rows import ROWS, rows_of
from latentc.passes.rotate import BlockHadamard
from latentc.passes.smooth import ChannelScale
from latentc.passes.weights import REWRITES_INPUT, Linear, find_linears

PLAIN = """g (float[B,8] x) => (float[B,4] y) <float[8,4] w> { y = MatMul (x, w) }"""
REWRITTEN = """g (float[B,8] x) => (float[B,4] y) <float[8] s, float[8,8] h, float[8,4] w> {
    scaled = Mul (x, s)
    turned = MatMul (scaled, h)
    y = MatMul (turned, w)
}"""


def recorded(folder: Path, rows: np.ndarray) -> PassContext:
    (folder / ROWS).mkdir()
    np.save(folder / ROWS / "w.fit.npy", rows)
    np.save(folder / ROWS / "w.held_out.npy", rows[:2])
    return PassContext(calibration=folder)


def linear_named(model: ir.Model, name: str) -> Linear:
    return next(linear for linear in find_linears(model.graph) if linear.name == name)


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((6, 8)).astype(np.float32)


def test_rows_of_an_untouched_linear(tmp_path: Path, seed: int) -> None:
    rows = drawn(seed)
    found = rows_of("some-pass", linear_named(model_of(PLAIN), "w"), recorded(tmp_path, rows))
    np.testing.assert_array_equal(found.fit, rows)
    np.testing.assert_array_equal(found.held_out, rows[:2])


def test_marked_nodes_are_applied_to_the_rows(tmp_path: Path, seed: int) -> None:
    model, rows = model_of(REWRITTEN), drawn(seed)
    context = recorded(tmp_path, rows)
    np.testing.assert_array_equal(rows_of("some-pass", linear_named(model, "w"), context).fit, rows)
    for node in list(model.graph)[:2]:
        node.metadata_props[REWRITES_INPUT] = "some-pass"
    scale, turn = (model.graph.initializers[name].const_value for name in ("s", "h"))
    assert scale is not None
    assert turn is not None
    wanted = (rows.astype(np.float64) * scale.numpy()) @ turn.numpy()
    found = rows_of("some-pass", linear_named(model, "w"), context)
    np.testing.assert_allclose(found.fit, wanted, rtol=0, atol=1e-5)


def test_what_was_folded_comes_before_what_nodes_do(tmp_path: Path, seed: int) -> None:
    model, rows = model_of(REWRITTEN), drawn(seed)
    for node in list(model.graph)[:2]:
        node.metadata_props[REWRITES_INPUT] = "some-pass"
    linear = linear_named(model, "w")
    note_folded(linear.nodes[0], BlockHadamard(4), "some-pass")
    note_folded(linear.nodes[0], ChannelScale(np.arange(1, 9, dtype=np.float32)), "some-pass")
    scale, turn = (model.graph.initializers[name].const_value for name in ("s", "h"))
    assert scale is not None
    assert turn is not None
    wanted = BlockHadamard(4).columns(rows).astype(np.float64) * np.arange(1, 9)
    wanted = (wanted * scale.numpy()) @ turn.numpy()
    found = rows_of("some-pass", linear, recorded(tmp_path, rows))
    np.testing.assert_allclose(found.fit, wanted, rtol=0, atol=1e-4)  # of numbers up to 100
    np.testing.assert_allclose(found.held_out, wanted[:2], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            np.zeros((6, 7), np.float32),
            "some-pass: 'w': the recorded rows are [6, 7], wanted 8 columns\n"
            "fix: build the calibration again",
        ),
        (
            np.full((6, 8), np.nan, np.float32),
            "some-pass: 'w': the recorded rows hold NaN or infinity\nfix: build the calibration again",
        ),
    ],
)
def test_rows_that_do_not_fit(rows: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(PassError) as caught:
        rows_of("some-pass", linear_named(model_of(PLAIN), "w"), recorded(tmp_path, rows))
    assert str(caught.value) == message


def test_no_rows_were_recorded(tmp_path: Path) -> None:
    with pytest.raises(PassError) as caught:
        rows_of("some-pass", linear_named(model_of(PLAIN), "w"), PassContext(calibration=tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}/rows/w.fit.npy: cannot be read as recorded rows: [Errno 2] No such file or directory: "
        f"'{tmp_path}/rows/w.fit.npy'\n"
        "fix: set calibration.rows in the recipe, or build the calibration again"
    )
    with pytest.raises(PassError, match="needs calibration data"):
        rows_of("some-pass", linear_named(model_of(PLAIN), "w"), PassContext())
