import onnx_ir as ir
import pytest
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.value_types import allowed_types, infer_types


def test_types_follow_from_the_operators() -> None:
    model = model_of(
        """g (float[B,4,h,w] x, int64[B] ids) => (float[B,4,h,w] y, bool[B] big)
        <float[4] scale, float[4] shift, int64 limit = {3}> {
        normal = GroupNormalization <num_groups = 2> (x, scale, shift)
        sides = Shape (normal)
        zeros = ConstantOfShape (sides)
        half = Cast <to = 10> (zeros)
        back = Cast <to = 1> (half)
        y = Add (normal, back)
        big = Greater (ids, limit) }"""
    )
    for node in model.graph:
        for value in node.outputs:
            value.type = None
    infer_types(model.graph)
    assert {node.outputs[0].name: node.outputs[0].dtype for node in model.graph} == {
        "normal": ir.DataType.FLOAT,
        "sides": ir.DataType.INT64,
        "zeros": ir.DataType.FLOAT,
        "half": ir.DataType.FLOAT16,
        "back": ir.DataType.FLOAT,
        "y": ir.DataType.FLOAT,
        "big": ir.DataType.BOOL,
    }


def test_a_constant_node_is_refused() -> None:
    model = model_of(
        "g (float[B] x) => (float[B] y) { two = Constant <value_float = 2.0> () y = Mul (x, two) }"
    )
    with pytest.raises(PassError) as caught:
        infer_types(model.graph)
    assert str(caught.value) == (
        "'two': the type that Constant gives does not follow from its inputs\n"
        "fix: run canonicalize first, which turns Constant nodes into initializers"
    )


def test_the_scales_of_resize_are_always_float32() -> None:
    model = model_of(
        """g (float[B,4,h,w] x) => (float[B,4,12,12] y) <float[4] sizes = {1.0, 1.0, 2.0, 2.0}> {
        y = Resize (x, , sizes) }"""
    )
    data, _, scales = allowed_types(model.graph[0], "inputs", 3)
    assert "tensor(float16)" in data
    assert scales == {"tensor(float)"}
