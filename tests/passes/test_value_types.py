from __future__ import annotations

import onnx_ir as ir
import pytest

from latentc.errors import PassError
from latentc.passes.value_types import infer_types


def graph_of(node: ir.Node, *inputs: ir.Value) -> ir.Graph:
    node.outputs[0].name = "result"
    return ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": 21})


def value(name: str, dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([4]))


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [({"output_dtype": ir.DataType.INT8.value}, ir.DataType.INT8), ({}, ir.DataType.UINT8)],
)
def test_quantizer_without_a_zero_point(attributes: dict[str, int], wanted: ir.DataType) -> None:
    x, step = value("x", ir.DataType.FLOAT), value("step", ir.DataType.FLOAT)
    node = ir.node("QuantizeLinear", [x, step], attributes=attributes)
    infer_types(graph_of(node, x, step))
    assert node.outputs[0].dtype is wanted


def test_quantizer_with_a_zero_point() -> None:
    x, step, zero = (
        value("x", ir.DataType.FLOAT),
        value("step", ir.DataType.FLOAT),
        value("z", ir.DataType.INT8),
    )
    node = ir.node("QuantizeLinear", [x, step, zero])
    infer_types(graph_of(node, x, step, zero))
    assert node.outputs[0].dtype is ir.DataType.INT8


@pytest.mark.parametrize(
    ("operator", "attributes", "wanted"),
    [
        ("Cast", {"to": ir.DataType.FLOAT.value}, ir.DataType.FLOAT),
        ("Shape", {}, ir.DataType.INT64),
        ("Sigmoid", {}, ir.DataType.FLOAT16),
    ],
)
def test_other_operators(operator: str, attributes: dict[str, int], wanted: ir.DataType) -> None:
    x = value("x", ir.DataType.FLOAT16)
    node = ir.node(operator, [x], attributes=attributes)
    infer_types(graph_of(node, x))
    assert node.outputs[0].dtype is wanted


def test_what_does_not_follow() -> None:
    node = ir.node("Sigmoid", [ir.Value(name="untyped")])
    with pytest.raises(
        PassError, match="'result': the type that Sigmoid gives does not follow from its inputs"
    ):
        infer_types(graph_of(node))
