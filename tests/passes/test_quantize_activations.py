"""Simulated activations: the values of the definition in float64, each token and group for itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.four_gates import assert_twice_is_once
from tests.passes.graphs import inputs_of, model_of, operators, relative_error, run_model

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.quantize_activations import SIMULATED, QuantizeActivations, rounded_rows
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank

SHARED = """g (float[B,T,128] x) => (float[B,T,64] y, float[B,T,64] z) <float[128,64] w, float[128,64] v> {
    y = MatMul (x, w)
    z = MatMul (x, v) }"""
SIZES = {"B": 2, "T": 3}


def records(folder: Path, model: ir.Model) -> PassContext:
    folder.mkdir()
    for number in range(3):
        np.savez(folder / f"{number:04d}.npz", **inputs_of(model, SIZES, number))  # type: ignore[arg-type]
    return PassContext(calibration=folder)


def quantized(folder: Path) -> tuple[ir.Model, PassContext]:
    model = model_of(SHARED)
    return QuantizeInt4()(model, PassContext()).model, records(folder, model)


def by_definition(rows: np.ndarray, bits: int, group: int, *, symmetric: bool) -> np.ndarray:
    out = np.zeros(rows.shape)
    for index in np.ndindex(rows.shape[:-1]):
        for start in range(0, rows.shape[-1], group):
            part = rows[index][start : start + group].astype(np.float64)
            low = 0.0 if symmetric else part.min()
            span = (
                np.abs(part).max() / (2 ** (bits - 1) - 1)
                if symmetric
                else (part.max() - low) / (2**bits - 1)
            )
            step = max(span, 2.0**-24)
            out[index][start : start + group] = np.rint((part - low) / step) * step + low
    return out


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_graph_computes_the_definition(bits: int, symmetric: bool, tmp_path: Path, seed: int) -> None:
    model, context = quantized(tmp_path / "records")
    after = QuantizeActivations(bits=bits, symmetric=symmetric)(model, context).model
    feeds = inputs_of(model, SIZES, seed)
    feeds["x"][0, 0, :64] = 0  # a group of zeros stays zero
    rounded = by_definition(feeds["x"], bits, 64, symmetric=symmetric).astype(np.float32)
    wanted = run_model(model, tmp_path / "before", {"x": rounded})
    seen = run_model(after, tmp_path / "after", feeds)
    for one, other in zip(seen, wanted, strict=True):
        assert relative_error(one, other) < 1e-6  # float32 sums of 128 products


def test_one_rounding_serves_all_readers(tmp_path: Path) -> None:
    model, context = quantized(tmp_path / "records")
    after = QuantizeActivations()(model, context).model
    assert operators(after).count("Round") == 1
    assert_twice_is_once(QuantizeActivations(), model, context)
    (loss,) = [loss for loss in context.ledger.losses if loss.pass_name == "quantize-activations"][:1]
    # 15 levels over the largest of 64 normal values, 2.4 deviations: 2.4 / 7 / sqrt(12) of the spread
    assert 0.08 < loss.relative_error < 0.12
    assert [node.metadata_props[SIMULATED] for node in after.graph if SIMULATED in node.metadata_props] == [
        "INT4 activations"
    ]


def test_the_branch_multiplies_what_was_not_rounded(tmp_path: Path) -> None:
    model = model_of(SHARED)
    context = records(tmp_path / "records", model)
    split = SplitLowRank(rank=8, max_ratio=0.4)(model, context).model
    after = QuantizeActivations()(QuantizeInt4()(split, context).model, context).model
    readers = {use.node.name for use in after.graph.inputs[0].uses() if use.node.op_type == "MatMul"}
    assert readers == {"y.inner", "z.inner"}


def test_skip_leaves_one_reader_alone(tmp_path: Path, seed: int) -> None:
    model, context = quantized(tmp_path / "records")
    result = QuantizeActivations(skip=("v",))(model, context)
    assert [(refusal.where, refusal.why) for refusal in result.refusals] == [("v", "matches skip")]
    feeds = inputs_of(model, SIZES, seed)
    before = run_model(model, tmp_path / "before", feeds)
    after = run_model(result.model, tmp_path / "after", feeds)
    np.testing.assert_array_equal(after[1], before[1])
    assert relative_error(after[0], before[0]) > 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.sampled_from([4, 8]), st.floats(-30, 30), st.integers(0, 1000))
def test_rounding_has_the_scale_of_its_input(rows: int, bits: int, power: float, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, 128)).astype(np.float32)
    once = rounded_rows(values, bits, 64)
    assert np.abs(once - values).max() <= 0.51 * np.abs(values).max() / (2 ** (bits - 1) - 1)
    np.testing.assert_allclose(rounded_rows(once, bits, 64), once, rtol=0, atol=1e-6 * np.abs(values).max())
    factor = np.float32(2.0 ** round(power / 3))
    np.testing.assert_array_equal(rounded_rows(values * factor, bits, 64), once * factor)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.sampled_from([4, 8]), st.floats(-30, 30), st.integers(0, 1000))
def test_asymmetric_rounding_spans_each_group(rows: int, bits: int, offset: float, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, 128)).astype(np.float32) + np.float32(offset)
    once = rounded_rows(values, bits, 64, symmetric=False)
    spans = np.ptp(values.reshape(rows, 2, 64), axis=2).max()
    rounding = 1e-6 * np.abs(values).max()
    assert np.abs(once - values).max() <= 0.51 * spans / (2**bits - 1) + rounding
    for group in once.reshape(-1, 64):
        assert len(np.unique(group)) <= 2**bits
    ends = [np.min, np.max]
    for end in ends:  # the least and the largest of a group stay what they are
        np.testing.assert_allclose(
            end(once.reshape(-1, 64), axis=1), end(values.reshape(-1, 64), axis=1), rtol=0, atol=2 * rounding
        )


def test_a_group_of_equal_values_stays_as_it_is() -> None:
    rows = np.full((2, 64), 3.25, np.float32)
    np.testing.assert_array_equal(rounded_rows(rows, 4, 64, symmetric=False), rows)


def test_what_a_gelu_gives_loses_half_as_much_with_asymmetric_codes() -> None:
    drawn = torch.randn(256, 128, generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.gelu(drawn).numpy()
    errors = [np.linalg.norm(rounded_rows(rows, 4, 64, symmetric=one) - rows) for one in (True, False)]
    assert errors[0] > 1.8 * errors[1]


def test_other_widths_are_refused() -> None:
    with pytest.raises(PassError) as caught:
        QuantizeActivations(bits=5)
    assert str(caught.value) == "quantize-activations.bits: is 5, wanted 4 or 8\nfix: write bits=4"
