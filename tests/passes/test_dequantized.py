"""Codes times steps, along either axis or in groups; and the codes are found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import inputs_of, model_of, run_model

from latentc.passes.dequantized import codes_behind, dequantized
from latentc.passes.weights import find_linears, initializer

LINEAR = "g (float[B,16] x) => (float[B,8] y) <float[16,8] w> { y = MatMul (x, w) }"


@pytest.mark.parametrize(
    ("shape", "axis", "group"), [((8,), 1, 0), ((16,), 0, 0), ((), 1, 0), ((4, 8), 0, 4), ((16, 2), 1, 4)]
)
def test_a_weight_is_its_codes_times_its_steps(
    tmp_path: Path, seed: int, shape: tuple[int, ...], axis: int, group: int
) -> None:
    model = model_of(LINEAR)
    (linear,) = find_linears(model.graph)
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (16, 8)).astype(np.int8)
    steps = rng.uniform(0.01, 0.1, shape).astype(np.float16)
    stored = initializer(model.graph, "w.codes", ir.tensor(codes))
    scale = initializer(model.graph, "w.steps", ir.tensor(steps))
    wide = dequantized(model.graph, linear.nodes[0], stored, scale, "wide", axis, group)
    linear.weight.replace_all_uses_with(wide)
    feeds = inputs_of(model, {"B": 3}, seed)
    (seen,) = run_model(model, tmp_path, feeds)
    each = steps.astype(np.float64)
    if group:
        each = each.repeat(group, axis)
    elif shape and axis == 0:
        each = each[:, None]
    wanted = np.asarray(feeds["x"], np.float64) @ (codes * each)
    np.testing.assert_allclose(np.asarray(seen, np.float64), wanted, rtol=1e-5, atol=1e-5)
    assert codes_behind(wide) is stored.const_value


def test_what_is_not_dequantized_has_no_codes() -> None:
    model = model_of(LINEAR)
    (linear,) = find_linears(model.graph)
    assert codes_behind(linear.weight) is None
    assert codes_behind(linear.nodes[0].outputs[0]) is None
    assert codes_behind(None) is None
