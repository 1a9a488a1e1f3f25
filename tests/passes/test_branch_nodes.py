"""A side path is added after the bias, and two of them stand beside one linear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from tests.passes.graphs import inputs_of, model_of, relative_error, run_model, values

from latentc.passes.branch_nodes import add_beside, dequantized
from latentc.passes.weights import find_linears, initializer, name_of

LINEAR = """g (float[B,16] x) => (float[B,8] y) <float[16,8] w, float[8] b> {
    product = MatMul (x, w)
    y = Add (product, b) }"""


def test_two_beside_one(tmp_path: Path, seed: int) -> None:
    model = model_of(LINEAR)
    (linear,) = find_linears(model.graph)
    codes = np.random.default_rng(seed).integers(-127, 128, (16, 8)).astype(np.int8)
    steps = np.full(8, 0.01, np.float16)
    for number in (1, 2):
        stored = initializer(model.graph, f"codes{number}", ir.tensor(codes))
        scale = initializer(model.graph, f"steps{number}", ir.tensor(steps))
        wide = dequantized(model.graph, linear.nodes[0], stored, scale)
        add_beside(
            model.graph,
            linear.nodes[0],
            ((ir.node("MatMul", [linear.nodes[0].inputs[0], wide]), "side"),),
            "w",
        )
    feeds = inputs_of(model, {"B": 3}, seed)
    (seen,) = run_model(model, tmp_path, feeds)
    whole = values("w", (16, 8)) + 2 * codes.astype(np.float32) * steps.astype(np.float32)
    wanted = feeds["x"].astype(np.float64) @ whole + values("b", (8,))
    assert relative_error(seen, wanted) < 1e-5  # sums of 16 in float32, some of which cancel
    assert [name_of(output) for output in model.graph.outputs] == ["y"]
    assert len(list(find_linears(model.graph))) == 1
