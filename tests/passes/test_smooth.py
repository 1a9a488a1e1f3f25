"""Smoothing keeps the function, shares one scale, and is taken only where held-out rows say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import inputs_of, model_of, operators, relative_error, run_model

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.compress_heads import CompressHeads
from latentc.passes.layer_rows import ROWS, rows_of
from latentc.passes.quantize_activations import QuantizeActivations
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.rotate import Rotate
from latentc.passes.sequence import run_passes
from latentc.passes.smooth import Smooth
from latentc.passes.weight_bytes import weigh
from latentc.passes.weights import find_linears

SHARED = """g (float[B,T,128] x) => (float[B,T,64] y, float[B,T,64] z) <float[128,64] w, float[128,64] v> {
    y = MatMul (x, w)
    z = MatMul (x, v) }"""
OUTLIERS = np.ones(128, np.float32)
OUTLIERS[[3, 70]] = 80, 40


def rows_with_outliers(count: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, 128)).astype(np.float32)
    return np.asarray(drawn * OUTLIERS)


def recorded(folder: Path, seed: int, held_out: np.ndarray | None = None) -> PassContext:
    (folder / ROWS).mkdir(parents=True)
    for name in ("w", "v"):
        np.save(folder / ROWS / f"{name}.fit.npy", rows_with_outliers(96, seed))
        np.save(
            folder / ROWS / f"{name}.held_out.npy",
            rows_with_outliers(48, seed + 1) if held_out is None else held_out,
        )
    np.savez(folder / "0000.npz", x=rows_with_outliers(20, seed + 2)[None])
    return PassContext(calibration=folder)


def with_small_columns() -> ir.Model:
    """SHARED, whose weights are small where the inputs are large, as they are after training."""
    model = model_of(SHARED)
    for name in ("w", "v"):
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        small = np.asarray(tensor.numpy() / OUTLIERS[:, None], np.float32)
        model.graph.initializers[name].const_value = ir.tensor(small, name=name)
    return model


def test_the_function_stays_the_same(tmp_path: Path, seed: int) -> None:
    model, context = with_small_columns(), recorded(tmp_path / "records", seed)
    after = Smooth()(model, context).model
    assert operators(after) == ["Mul", "MatMul", "MatMul"]
    assert largest_error(model, after, tmp_path, seed) < 1e-6  # a product and its inverse in float32
    assert_twice_is_once(Smooth(optional=True), model, recorded(tmp_path / "again", seed))


def test_four_bits_lose_less_of_it(tmp_path: Path, seed: int) -> None:
    model, context = with_small_columns(), recorded(tmp_path / "records", seed)
    feeds = {"x": rows_with_outliers(30, seed + 5)[None]}
    wanted = run_model(model, tmp_path / "float", feeds)
    errors = []
    for number, before in enumerate(([], [Smooth(rank=0)])):
        chain = [*before, QuantizeInt4(), QuantizeActivations()]
        rounded, _ = run_passes(model, chain, context)
        seen = run_model(rounded, tmp_path / str(number), feeds)
        errors.append(max(relative_error(one, other) for one, other in zip(seen, wanted, strict=True)))
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.2  # 4 bits on both sides of evenly sized channels: 0.1 each


def test_later_passes_find_the_rows_scaled(tmp_path: Path, seed: int) -> None:
    model, context = with_small_columns(), recorded(tmp_path / "records", seed)
    before = {linear.name: rows_of("test", linear, context).fit for linear in find_linears(model.graph)}
    after = Smooth()(model, context).model
    scale = after.graph.initializers["x.smooth.scale"].const_value
    assert scale is not None
    for linear in find_linears(after.graph):
        np.testing.assert_allclose(
            rows_of("test", linear, context).fit, before[linear.name] * scale.numpy(), rtol=1e-6
        )
    # the outliers are pulled in: the largest channel is nearer to the rest than it was
    peaks = np.abs(before["w"] * scale.numpy()).max(axis=0)
    assert peaks.max() / np.median(peaks) < 0.2 * 80


def test_a_scale_that_does_not_carry_over_is_refused(tmp_path: Path, seed: int) -> None:
    """The held-out rows have their large channels where those of the fit have small ones."""
    others = np.random.default_rng(seed).standard_normal((48, 128)).astype(np.float32)
    others[:, 100:] *= 500
    context = recorded(tmp_path, seed, others)
    result = Smooth(optional=True)(with_small_columns(), context)
    assert result.changes == ()
    assert [refusal.where for refusal in result.refusals] == ["w, v"]
    assert "no scale is better than none on held-out rows" in result.refusals[0].why
    assert {trial.way: trial.taken for trial in context.ledger.trials}["as it is"]


ATTENTION = """g (float[B,S,24] x) => (float[B,S,64] y)
    <float[24,64] q, float[24,64] v, float[64] b, float[64,64] o, int64[4] split = {0, 0, 2, 32},
     int64[3] join = {0, 0, 64}> {
    queries = MatMul (x, q)
    query_heads = Reshape (queries, split)
    left = Transpose <perm = [0, 2, 1, 3]> (query_heads)
    right = Transpose <perm = [0, 2, 3, 1]> (query_heads)
    scores = MatMul (left, right)
    shares = Softmax <axis = -1> (scores)
    products = MatMul (x, v)
    values = Add (products, b)
    value_heads = Reshape (values, split)
    turned = Transpose <perm = [0, 2, 1, 3]> (value_heads)
    mixed = MatMul (shares, turned)
    back = Transpose <perm = [0, 2, 1, 3]> (mixed)
    z = Reshape (back, join)
    y = MatMul (z, o) }"""


def heads_recorded(folder: Path, seed: int) -> PassContext:
    (folder / ROWS).mkdir(parents=True)
    rows = np.random.default_rng(seed).standard_normal((144, 64)).astype(np.float32)
    rows[:, [3, 40]] *= 30
    np.save(folder / ROWS / "o.fit.npy", rows[:96])
    np.save(folder / ROWS / "o.held_out.npy", rows[96:])
    return PassContext(calibration=folder)


def test_attention_scales_its_values_for_nothing(tmp_path: Path, seed: int) -> None:
    model, context = model_of(ATTENTION), heads_recorded(tmp_path / "records", seed)
    result = Smooth(rank=0)(model, context)
    (change,) = result.changes
    assert change.what.endswith(", folded into v, b")
    assert operators(result.model) == operators(model)
    assert weigh(result.model) == weigh(model)
    feeds = inputs_of(model, {"B": 2, "S": 5}, seed)
    (seen,), (wanted,) = (run_model(one, tmp_path / "run", feeds) for one in (result.model, model))
    assert relative_error(seen, wanted) < 1e-6
    assert_twice_is_once(Smooth(rank=0, optional=True), model, heads_recorded(tmp_path / "again", seed))


def test_later_passes_find_the_same_rows_whether_folded_or_not(tmp_path: Path, seed: int) -> None:
    model, context = model_of(ATTENTION), heads_recorded(tmp_path, seed)
    found = []
    for fold in (True, False):
        chain = [Smooth(rank=0, fold=fold), Rotate(rank=0, block=32, fold=fold)]
        after, reports = run_passes(model, chain, context)
        linear = next(one for one in find_linears(after.graph) if one.name == "o")
        found.append((rows_of("test", linear, context), [report.changes[0].what for report in reports]))
    (folded, how), (online, why) = found
    assert all(words.endswith(", folded into v, b") for words in how)
    assert all(words.endswith(", online: fold is false") for words in why)
    np.testing.assert_allclose(folded.fit, online.fit, rtol=0, atol=1e-5)
    np.testing.assert_allclose(folded.held_out, online.held_out, rtol=0, atol=1e-5)


def test_heads_can_be_compressed_after_it(tmp_path: Path, seed: int) -> None:
    model, context = model_of(ATTENTION), heads_recorded(tmp_path / "records", seed)
    chain = [Smooth(rank=0), CompressHeads(keep=1.0, calibrated=False, optional=True)]
    whole, _ = run_passes(model, chain, context)
    narrow, _ = run_passes(model, [chain[0], CompressHeads(keep=0.5, calibrated=False)], context)
    feeds = inputs_of(model, {"B": 2, "S": 5}, seed)
    (wanted,), (seen,), (rough,) = (run_model(one, tmp_path / "run", feeds) for one in (model, whole, narrow))
    assert relative_error(seen, wanted) < 1e-5
    assert relative_error(rough, wanted) < 1


def test_channels_that_are_always_zero(tmp_path: Path, seed: int) -> None:
    model, context = with_small_columns(), recorded(tmp_path / "records", seed)
    for kind in ("fit", "held_out"):
        path = tmp_path / "records" / ROWS / f"w.{kind}.npy"
        rows = np.load(path)
        rows[:, 9] = 0
        np.save(path, rows)
    after = Smooth()(model, context).model
    scale = after.graph.initializers["x.smooth.scale"].const_value
    assert scale is not None
    assert np.isfinite(scale.numpy()).all()
    assert scale.numpy()[9] == 1
    feeds = inputs_of(model, {"B": 1, "T": 4}, seed)
    for one, other in zip(
        run_model(after, tmp_path / "a", feeds), run_model(model, tmp_path / "b", feeds), strict=True
    ):
        assert relative_error(one, other) < 1e-6


def test_nan_is_named(tmp_path: Path, seed: int) -> None:
    model, context = with_small_columns(), recorded(tmp_path, seed)
    weight = np.zeros((128, 64), np.float32)
    weight[1, 2] = np.nan
    model.graph.initializers["v"].const_value = ir.tensor(weight, name="v")
    with pytest.raises(PassError) as caught:
        Smooth()(model, context)
    assert str(caught.value) == "smooth: 'v' holds NaN or infinity\nfix: check the checkpoint"
