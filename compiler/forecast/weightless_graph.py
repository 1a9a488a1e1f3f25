"""Weightless graph: a trace as a graph that passes can rewrite, whose weights have a shape and no values.

Linears are MatMul and Add with [K, N] weights, as canonicalize leaves them, convolutions are Conv, embeddings
Gather; everything else keeps torch's name and moves numbers only. Passes change shapes and types of what is
stored as they do on an exported graph, and bytes can be counted that no file holds yet.
"""

from __future__ import annotations

import onnx_ir as ir

from latentc.compiler.forecast.trace import Trace, TracedNode
from latentc.errors import InternalError
from latentc.passes.weights import initializer

TORCH = "torch"
"""Domain of the operators that keep torch's name."""
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def weightless_graph(trace: Trace, name: str) -> ir.Model:
    """The graph of ``trace``, called ``name``; inner values have their shapes."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21, TORCH: 1}, name=name)
    values = [
        ir.Value(name=f"value.{number}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(value.shape))
        for number, value in enumerate(trace.values)
    ]
    graph.inputs.extend(values[number] for number in trace.inputs)
    made = set(trace.inputs)
    for node in trace.nodes:
        outputs = [number for number in dict.fromkeys(node.outputs) if number not in made]
        made.update(outputs)
        if outputs:
            graph.extend(_nodes(graph, trace, node, values, outputs))
    graph.outputs.extend(values[number] for number in dict.fromkeys(trace.outputs) if number in made)
    return ir.Model(graph, ir_version=10)


def _nodes(
    graph: ir.Graph, trace: Trace, node: TracedNode, values: list[ir.Value], outputs: list[int]
) -> list[ir.Node]:
    def stored(name: str, *, turned: bool = False) -> ir.Value:
        if name in graph.initializers:
            return graph.initializers[name]
        shape = trace.weights[name]
        return initializer(graph, name, weightless(name, shape[::-1] if turned else shape))

    given = [values[number] for number in outputs]
    if node.op == "linear" and node.weights and len(trace.weights[node.weights[0]]) == 2 and node.values:
        product = ir.node("MatMul", [values[node.values[0]], stored(node.weights[0], turned=True)])
        made = [product]
        if len(node.weights) > 1:
            made.append(ir.node("Add", [product.outputs[0], stored(node.weights[1])], outputs=given))
            product.name = product.outputs[0].name = f"{given[0].name}.product"
            product.outputs[0].dtype, product.outputs[0].shape = ir.DataType.FLOAT, given[0].shape
        else:
            made = [ir.node("MatMul", list(product.inputs), outputs=given)]
    elif node.op in _CONVOLUTIONS and node.weights and node.values:
        weights = [stored(name) for name in node.weights]
        made = [ir.node("Conv", [values[node.values[0]], *weights], outputs=given)]
    elif node.op == "embedding" and node.weights:
        made = [
            ir.node("Gather", [stored(node.weights[0]), *(values[n] for n in node.values)], outputs=given)
        ]
    else:
        inputs = [stored(one) if isinstance(one, str) else values[one] for one in node.inputs]
        made = [ir.node(node.op, inputs, domain=TORCH, outputs=given)]
    made[-1].name = given[0].name
    return made


def weightless(name: str, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.LazyTensor:
    """A tensor that has no values; asking for them is a defect."""

    def refuse() -> ir.TensorProtocol:
        raise InternalError(name, "was read, and a foretold graph has no weights")

    return ir.LazyTensor(refuse, dtype, ir.Shape(shape), name=name)
