import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import model_of

from latentc.passes.stored_floats import stored_floats
from latentc.passes.weights import Floats

GRAPH = """g (float[B,8] x) => (float[B,6] y)
    <float[8,6] w, int8[8,6] c, float[6] s, float[4,6] t, float[] one> {
    columns = DequantizeLinear <axis = 1> (c, s)
    groups = DequantizeLinear <axis = 0, block_size = 2> (c, t)
    whole = DequantizeLinear (c, one)
    y = MatMul (x, w)
    y1 = MatMul (x, columns)
    y2 = MatMul (x, groups)
    y3 = MatMul (x, whole) }"""


def value(model: ir.Model, name: str) -> ir.Value:
    made = {output.name: output for node in model.graph for output in node.outputs}
    return made.get(name) or model.graph.initializers[name]


def numbers(model: ir.Model, name: str) -> Floats:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy().astype(np.float32)


@pytest.mark.parametrize("name", ["w", "columns", "groups", "whole"])
def test_floats_of_every_form(name: str) -> None:
    model = model_of(GRAPH)
    codes = numbers(model, "c")
    wanted = {
        "w": numbers(model, "w"),
        "columns": codes * numbers(model, "s"),
        "groups": codes * np.repeat(numbers(model, "t"), 2, axis=0),
        "whole": codes * numbers(model, "one"),
    }[name]
    found = stored_floats(value(model, name))
    assert found is not None
    assert (found.shape, found.is_float) == ((8, 6), name == "w")
    np.testing.assert_array_equal(found.read(), wanted)


def test_what_is_computed_is_not_stored() -> None:
    model = model_of(GRAPH)
    assert stored_floats(value(model, "y")) is None
    assert stored_floats(model.graph.inputs[0]) is None
    assert stored_floats(None) is None
