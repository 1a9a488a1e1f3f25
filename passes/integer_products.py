"""Integer-products: what was prepared for INT8, as the operators that onnxruntime executes in INT8.

    before   x.int8 = QuantizeLinear(x, x.step)
             x.quantized = DequantizeLinear(x.int8, x.step)
             y = Conv(x.quantized, DequantizeLinear(w.codes, w.steps), b)
             z = MatMul(x.quantized, DequantizeLinear(v.codes, v.steps))
    after    x.uint8 = QuantizeLinear(x, x.step, 128)         one for all that read x
             y = Cast(ConvInteger(x.uint8, w.codes, 128)) · w.scale + w.bias      w.scale: [1, N, 1, …]
             z = Cast(MatMulInteger(x.uint8, v.codes, 128)) · v.scale             v.scale: [N]

onnxruntime's CPU fuses Q/DQ around a Conv only when its output is quantized too. That would round every
output to 8 bits once more, which costs 7 to 17 dB of a layer; the sums of ConvInteger stay whole.
The same function: sums of integers are exact, and the zero point only moves the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.weights import Array, constant, initializer, lazy, name_of, read_floats, shape_of

ZERO_POINT = 128
"""Of the unsigned codes: the signed ones moved up, since ConvInteger takes unsigned activations."""
_INTEGER = {"Conv": "ConvInteger", "MatMul": "MatMulInteger"}


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
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Replace every Conv and MatMul between Q/DQ pairs of symmetric INT8."""
        graph = model.graph
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for node in list(graph):
            if node.op_type not in _INTEGER or node.domain:
                continue
            found = _quantized(node)
            if found is None and node.op_type == "MatMul":
                continue  # of activations, or with a weight in floats or in 4 bits
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            if found is None:
                refusals.append(Refusal(name_of(node.outputs[0]), "has no INT8 input and kernel"))
            elif bias is not None and constant(bias) is None:
                refusals.append(Refusal(name_of(node.outputs[0]), "has a bias that is computed"))
            else:
                _replace(graph, node, found, bias)
                changes.append(Change(name_of(found.codes), "multiplied and summed as integers"))
        RemoveUnusedNodesPass()(model)
        return PassResult(model, tuple(changes), tuple(refusals))


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


def _replace(graph: ir.Graph, node: ir.Node, found: _Quantized, bias: ir.Value | None) -> None:
    N, *rest = shape_of_codes(found.codes)
    is_linear = node.op_type == "MatMul"
    shape = (rest[0],) if is_linear else (1, N, *(1 for _ in rest[1:]))
    stem = name_of(found.codes).removesuffix(".codes")
    unsigned, zero_point = _unsigned(graph, found)
    scale = graph.initializers.get(f"{stem}.scale")
    if scale is None:
        step = constant(found.step)
        scale = initializer(
            graph,
            f"{stem}.scale",
            lazy(found.steps, lambda steps: _scale(steps, step, shape), shape, ir.DataType.FLOAT),
        )
    output = node.outputs[0]
    last = name_of(output)
    product = ir.node(
        _INTEGER[node.op_type], [unsigned, found.codes, zero_point], attributes=dict(node.attributes)
    )
    widen = ir.node("Cast", [product.outputs[0]], attributes={"to": ir.DataType.FLOAT.value})
    nodes = [product, widen, ir.node("Mul", [widen.outputs[0], scale])]
    if bias is not None:
        tensor = constant(bias)
        spread = graph.initializers.get(f"{name_of(bias)}.spread")
        if spread is None and tensor is not None:
            spread = initializer(
                graph,
                f"{name_of(bias)}.spread",
                lazy(tensor, lambda array: array.astype(np.float32).reshape(shape), shape, ir.DataType.FLOAT),
            )
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], spread]))
    for new, ending in zip(nodes, ("sums", "widened", "scaled", "biased"), strict=False):
        new.name = new.outputs[0].name = f"{last}.{ending}"
        new.outputs[0].shape = output.shape
        new.outputs[0].dtype = ir.DataType.INT32 if new is product else ir.DataType.FLOAT
    graph.insert_before(node, nodes)
    output.replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    nodes[-1].outputs[0].name = last


def shape_of_codes(codes: ir.Value) -> tuple[int, ...]:
    """[N, C, …] of a kernel's stored codes, [K, N] of a linear's."""
    tensor = constant(codes)
    return () if tensor is None else shape_of(tensor)


def _scale(steps: Array, step: ir.TensorProtocol | None, shape: tuple[int, ...]) -> Array:
    activation = np.float32(1) if step is None else read_floats(step)
    return np.asarray(steps.astype(np.float32) * activation, dtype=np.float32).reshape(shape)


def _unsigned(graph: ir.Graph, found: _Quantized) -> tuple[ir.Value, ir.Value]:
    """The unsigned codes of an activation, made once for all that read them, and their zero point."""
    name = f"{name_of(found.source)}.uint8"
    zero_point = graph.initializers.get("zero_point.uint8")
    if zero_point is None:
        zero_point = initializer(graph, "zero_point.uint8", ir.tensor(np.uint8(ZERO_POINT)))
    for use in found.source.uses():
        if use.node.name == name:
            return use.node.outputs[0], zero_point
    quantize = ir.node("QuantizeLinear", [found.source, found.step, zero_point])
    quantize.name = quantize.outputs[0].name = name
    quantize.outputs[0].dtype, quantize.outputs[0].shape = ir.DataType.UINT8, found.source.shape
    producer = found.source.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize])
    else:
        graph.insert_after(producer, [quantize])
    return quantize.outputs[0], zero_point
