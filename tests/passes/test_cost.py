"""Costs: bytes as they are stored, time with the rows that are recorded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.allotment import Allotment, Precision
from latentc.passes.cost import ByteCost, TimeCost, byte_cost, time_cost
from latentc.passes.latency import latency_of
from latentc.passes.low_rank import BranchType
from latentc.passes.shared_inputs import SharedInput
from latentc.passes.weights import REWRITES_INPUT, Linear, find_linears, name_of

GRAPH = """g (float[B,T,64] x, float[B,64] t) => (float[B,T,128] y, float[B,64] z)
    <float[64] scale, float[64,64] h, float[64,128] w, float[64,64] v> {
    scaled = Mul (x, scale)
    turned = MatMul (scaled, h)
    y = MatMul (turned, w)
    z = MatMul (t, v) }"""
LATENCY = latency_of("ort-mobile", "")
FLOAT, INT8, INT4 = (Allotment(precision) for precision in Precision)


def sample(tokens: int = 20) -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, tokens, 64), np.float32), "t": np.zeros((1, 64), np.float32)}


def rewritten() -> tuple[ir.Model, list[Linear]]:
    """The graph as if smooth and rotate had been at x, and its linears w and v."""
    model = model_of(GRAPH)
    for node in model.graph:
        if name_of(node.outputs[0]) in ("scaled", "turned"):
            node.metadata_props[REWRITES_INPUT] = "smooth"
    return model, [linear for linear in find_linears(model.graph) if linear.name in "wv"]


def costs() -> tuple[ByteCost, TimeCost, list[Linear]]:
    model, linears = rewritten()
    of_bytes = byte_cost(model, linears, 64, BranchType.INT8)
    return of_bytes, time_cost(model, linears, 64, BranchType.INT8, LATENCY, sample()), linears


def nanoseconds(seconds: float) -> int:
    return round(1e9 * seconds)


def test_bytes() -> None:
    cost, _, (w, v) = costs()
    assert (cost.whole, cost.spent, cost.device) == (2 * (64 * 128 + 64 * 64), 4 * (64 + 64 * 64), "")
    assert cost.of_linear(w, INT8) == 64 * 128 + 2 * 128
    assert cost.of_linear(v, Allotment(Precision.INT4, 4)) == 64 * 32 + 2 * 64 + 4 * (64 + 64 + 2) + 2
    assert cost.budget(0.5) == (64 * 128 + 64 * 64) - cost.spent
    assert cost.ratio(100) == (cost.spent + 100) / cost.whole


def test_time_goes_by_the_rows_of_each_linear() -> None:
    _, cost, (w, v) = costs()
    assert cost.rows == {"w": 20, "v": 1}
    assert cost.device == "ort-mobile"
    of_w = LATENCY.linear(64, 128, 20, INT4, 64, BranchType.INT8)
    assert cost.of_linear(w, INT4) == nanoseconds(of_w)
    floats = [LATENCY.linear(64, N, rows, FLOAT, 64, BranchType.INT8) for N, rows in ((128, 20), (64, 1))]
    assert cost.whole == sum(map(nanoseconds, floats))
    assert cost.of_linear(v, FLOAT) == nanoseconds(floats[1])


def test_time_of_scales_and_rotations_is_spent() -> None:
    _, cost, _ = costs()
    scaling, turning = LATENCY.elementwise(2 * 20 * 64), LATENCY.blocks(20 * 64, 64)
    assert cost.spent == nanoseconds(scaling) + nanoseconds(turning)


def test_a_subspace_is_paid_for_once() -> None:
    of_bytes, of_time, (w, _) = costs()
    value = w.nodes[0].inputs[0]
    assert value is not None
    shared = SharedInput(value, (w,))
    assert of_bytes.of_subspace(shared, 4) == 4 * 64 + 2 * 4 + 4
    assert of_time.of_subspace(shared, 4) == nanoseconds(LATENCY.subspace(64, 20, 4))


def test_no_rows() -> None:
    model, linears = rewritten()
    with pytest.raises(PassError) as caught:
        time_cost(model, linears, 64, BranchType.INT8, LATENCY, sample(0))
    assert str(caught.value) == (
        "'w': has no rows to multiply in the first record\nfix: build the calibration again"
    )
