"""Integer-products: what was quantized on both sides, as the product of integers that onnxruntime executes.

    before   x.int8 = QuantizeLinear(x, x.step)
             x.quantized = DequantizeLinear(x.int8, x.step)
             y = Conv(x.quantized, DequantizeLinear(w.codes, w.steps), b)
             z = MatMul(x.quantized, DequantizeLinear(v.codes, v.steps))
    after    x.uint8 = QuantizeLinear(x, x.step, 128)         one for all that read x
             rows = Concat(Slice(Pad(Transpose(x.uint8))))    latentc.passes.unfolded
             y = Transpose(MatMulIntegerToFloat(rows, w.matrix, x.step, w.steps, 128, , b))
             z = MatMulIntegerToFloat(x.uint8, v.codes, x.step, v.steps, 128)

The same function: sums of integers are exact, and the zero point only moves the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.integer_product import Factor, Rounded, multiply
from latentc.passes.unfolded import Window, matrix_of, window_of
from latentc.passes.weights import constant, initializer, lazy, name_of, shape_of

ZERO_POINT = 128
"""Of the unsigned codes: the signed ones moved up, since the kernel multiplies unsigned by signed."""


@dataclass(frozen=True)
class _Quantized:
    """What a quantized node reads: what is rounded, in which step, the weight's codes and their steps."""

    source: ir.Value
    step: ir.Value
    codes: ir.Value
    steps: ir.TensorProtocol


@dataclass(frozen=True)
class IntegerProducts(Pass):
    """Execute quantized convolutions and linears on integers."""

    name: ClassVar[str] = "integer-products"
    version: ClassVar[int] = 2
    preserves: ClassVar[bool] = True

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Replace every Conv and MatMul between Q/DQ pairs of symmetric INT8."""
        graph = model.graph
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for node in list(graph):
            if node.op_type not in ("Conv", "MatMul") or node.domain:
                continue
            found = _quantized(node)
            if found is None and node.op_type == "MatMul":
                continue  # of activations, or with a weight in floats or in 4 bits
            why = "has no INT8 input and kernel" if found is None else _obstacle(node)
            window = _window(node, found)
            if found is None or why or isinstance(window, str):
                refusals.append(Refusal(name_of(node.outputs[0]), why or str(window)))
                continue
            multiply(graph, node, _unsigned(graph, found), _factor(graph, found, window), window)
            changes.append(Change(name_of(found.codes), "multiplied and summed as integers"))
        RemoveUnusedNodesPass()(model)
        return PassResult(model, tuple(changes), tuple(refusals))


def _window(node: ir.Node, found: _Quantized | None) -> Window | str | None:
    if found is None or node.op_type == "MatMul":
        return None
    tensor = constant(found.codes)
    return window_of(node, () if tensor is None else shape_of(tensor))


def _obstacle(node: ir.Node) -> str:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return "has a bias that is computed" if bias is not None and constant(bias) is None else ""


def _quantized(node: ir.Node) -> _Quantized | None:
    value, kernel = node.inputs[0], node.inputs[1]
    dequantize = _made_by(value, "DequantizeLinear")
    quantize = _made_by(dequantize.inputs[0], "QuantizeLinear") if dequantize else None
    weights = _made_by(kernel, "DequantizeLinear")
    if quantize is None or weights is None or len(quantize.inputs) > 2 or len(weights.inputs) > 2:
        return None
    source, step, codes = quantize.inputs[0], quantize.inputs[1], weights.inputs[0]
    cast = _made_by(weights.inputs[1], "Cast")
    steps = constant(cast.inputs[0] if cast else weights.inputs[1])
    stored = constant(codes)
    if source is None or step is None or codes is None or steps is None or constant(step) is None:
        return None
    if stored is None or stored.dtype is not ir.DataType.INT8:
        return None
    return _Quantized(source, step, codes, steps)


def _made_by(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator else None


def _factor(graph: ir.Graph, found: _Quantized, window: Window | None) -> Factor:
    stem = name_of(found.codes).removesuffix(".codes")
    name = f"{stem}.scale"
    steps = graph.initializers.get(name)
    if steps is None:
        wide = lazy(
            found.steps,
            lambda array: array.astype(np.float32),
            shape_of(found.steps),
            ir.DataType.FLOAT,
        )
        steps = initializer(graph, name, wide)
    codes, stored = found.codes, constant(found.codes)
    if window is not None and stored is not None:
        name = f"{stem}.matrix"
        known = graph.initializers.get(name)
        N, C, height, width = shape_of(stored)
        codes = known or initializer(
            graph, name, lazy(stored, matrix_of, (height * width * C, N), ir.DataType.INT8)
        )
    return Factor(codes, steps)


def _unsigned(graph: ir.Graph, found: _Quantized) -> Rounded:
    """The unsigned codes of an activation, made once for all that read them."""
    name = f"{name_of(found.source)}.uint8"
    zero_point = graph.initializers.get("zero_point.uint8")
    if zero_point is None:
        zero_point = initializer(graph, "zero_point.uint8", ir.tensor(np.uint8(ZERO_POINT)))
    for use in found.source.uses():
        if use.node.name == name:
            return Rounded(use.node.outputs[0], found.step, zero_point)
    quantize = ir.node("QuantizeLinear", [found.source, found.step, zero_point])
    quantize.name = quantize.outputs[0].name = name
    quantize.outputs[0].dtype, quantize.outputs[0].shape = ir.DataType.UINT8, found.source.shape
    producer = found.source.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize])
    else:
        graph.insert_after(producer, [quantize])
    return Rounded(quantize.outputs[0], found.step, zero_point)
