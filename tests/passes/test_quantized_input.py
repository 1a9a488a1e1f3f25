"""Quantized input: one pair of nodes for all readers, and what it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.passes.graphs import model_of, run_model

from latentc.passes.quantized_input import quantized_input

GRAPH = """g (float[B,4] x) => (float[B,4] y, float[B,4] z) {
    inner = Neg (x)
    y = Identity (inner)
    z = Abs (inner) }"""


def test_readers_share_one_pair(tmp_path: Path) -> None:
    model = model_of(GRAPH)
    inner = model.graph[0].outputs[0]
    rounded = [quantized_input(model.graph, inner, 0.5) for _ in range(2)]
    assert rounded[0] is rounded[1]
    model.graph[-1].replace_input_with(0, rounded[0])
    values = np.array([[0.1, 0.3, -0.7, 100.0]], np.float32)
    y, z = run_model(model, tmp_path / "model", {"x": values})
    np.testing.assert_array_equal(y, -values)
    np.testing.assert_array_equal(z, np.array([[0, 0.5, 0.5, 64.0]], np.float32))


def test_an_input_of_the_graph_can_be_rounded() -> None:
    model = model_of(GRAPH)
    rounded = quantized_input(model.graph, model.graph.inputs[0], 0.25)
    assert [node.op_type for node in model.graph][:2] == ["QuantizeLinear", "DequantizeLinear"]
    assert rounded.name == "x.quantized"
