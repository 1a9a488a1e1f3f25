"""What stands in a linear's place gives codes times steps, in blocks or by output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import inputs_of, model_of, relative_error, run_model

from latentc.passes.quantized_linear import replace_by_codes
from latentc.passes.weights import find_linears


@pytest.mark.parametrize(("dtype", "group"), [(ir.DataType.INT4, 16), (ir.DataType.INT8, 0)])
def test_codes_times_steps(dtype: ir.DataType, group: int, tmp_path: Path, seed: int) -> None:
    model = model_of("g (float[B,32] x) => (float[B,8] y) <float[32,8] w> { y = MatMul (x, w) }")
    random = np.random.default_rng(seed)
    codes = random.integers(-7, 8, (32, 8)).astype(np.int8)
    steps = random.uniform(0.1, 1, (32 // group, 8) if group else 8).astype(np.float16)
    (linear,) = find_linears(model.graph)
    replace_by_codes(model.graph, linear, lambda: {"codes": codes, "steps": steps}, dtype, group)
    feeds = inputs_of(model, {"B": 3}, seed)
    wide = np.repeat(steps, group, axis=0) if group else steps
    wanted = feeds["x"].astype(np.float64) @ (codes * wide.astype(np.float64))
    (seen,) = run_model(model, tmp_path, feeds)
    assert relative_error(seen, wanted) < 1e-6  # sums of 32 in float32
    assert list(find_linears(model.graph)) == []
