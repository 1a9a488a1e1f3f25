"""Shapes are those that the graph's values have on a record."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.graphs import model_of

from latentc.passes.recorded_shapes import recorded_shapes

GRAPH = """g (float[B,T,64] x) => (float[B,T,32] y) <float[64,48] w, float[48,32] v> {
    inner = MatMul (x, w)
    y = MatMul (inner, v) }"""


@pytest.mark.parametrize("tokens", [1, 7])
def test_inputs_inner_values_and_outputs(tokens: int) -> None:
    model = model_of(GRAPH)
    sample = {"x": np.zeros((2, tokens, 64), np.float32)}
    shapes = recorded_shapes(model, ["x", "inner", "y", "x"], sample)
    assert shapes == {"x": (2, tokens, 64), "inner": (2, tokens, 48), "y": (2, tokens, 32)}
    assert len(model.graph) == 2  # the graph that was given asks nothing


def test_nothing_asked_nothing_run() -> None:
    assert recorded_shapes(model_of(GRAPH), [], {}) == {}
