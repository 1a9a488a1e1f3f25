"""Integer product: a quantized Conv or MatMul as the one kernel of onnxruntime that keeps its sums whole.

    z = MatMulIntegerToFloat(x.uint8, v.codes, x.step, v.steps, x.zero, , b)
    y = Transpose(MatMulIntegerToFloat(rows of x.uint8, w.matrix, x.step, w.steps, x.zero, , b))

The kernel sums in 32 bits, and turns sums into floats, with steps and bias, while they are in the cache. Of
what else onnxruntime has, QLinearConv rounds its output to 8 bits, which costs 7 to 17 dB of a layer, and
ConvInteger, whose kernel is signed and stands on the left, runs at a third of float32's speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from latentc.passes.unfolded import TO_PICTURE, Window, rows_of
from latentc.passes.weights import bias_add, constant, initializer, lazy, name_of

DOMAIN = "com.microsoft"
"""Of the operators that onnxruntime adds to ONNX's."""


@dataclass(frozen=True)
class Rounded:
    """An activation as unsigned 8-bit ``codes``: its floats are ``step`` · (codes - ``zero``)."""

    codes: ir.Value
    step: ir.Value
    zero: ir.Value


@dataclass(frozen=True)
class Factor:
    """A weight as signed 8-bit ``codes`` [K, N]: its floats are ``steps`` [N] · codes."""

    codes: ir.Value
    steps: ir.Value


def multiply(graph: ir.Graph, node: ir.Node, rounded: Rounded, factor: Factor, window: Window | None) -> None:
    """Put the product of ``rounded`` and ``factor`` in the place of ``node``, and of its bias.

    Args:
        graph: holds ``node``.
        node: a MatMul, or a Conv whose bias, if it has one, is a constant.
        rounded: what it multiplies.
        factor: by what.
        window: of a Conv; None for a MatMul.
    """
    graph.opset_imports[DOMAIN] = 1
    add = bias_add(node) if window is None else None
    bias = _other_input(add, node) if add is not None else node.inputs[2] if len(node.inputs) > 2 else None
    last = add or node
    output = last.outputs[0]
    name = name_of(output)
    nodes: list[ir.Node] = []
    rows = rounded.codes
    if window is not None:
        nodes, rows = rows_of(graph, rounded.codes, rounded.zero, window, f"{name}.window")
    product = ir.node(
        "MatMulIntegerToFloat",
        [rows, factor.codes, rounded.step, factor.steps, rounded.zero, None, _floats(graph, bias)],
        domain=DOMAIN,
    )
    nodes.append(product)
    if window is not None:
        product.name = product.outputs[0].name = f"{name}.pixels"
        product.outputs[0].dtype = ir.DataType.FLOAT
        nodes.append(ir.node("Transpose", [product.outputs[0]], attributes={"perm": TO_PICTURE}))
    result = nodes[-1].outputs[0]
    result.dtype, result.shape = ir.DataType.FLOAT, output.shape
    graph.insert_before(last, nodes)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    for old in (last, node) if add is not None else (node,):
        graph.remove(old, safe=True)
    nodes[-1].name = result.name = name


def _other_input(add: ir.Node, product: ir.Node) -> ir.Value | None:
    return add.inputs[1] if add.inputs[0] is product.outputs[0] else add.inputs[0]


def _floats(graph: ir.Graph, bias: ir.Value | None) -> ir.Value | None:
    """``bias`` as a float32 constant, which is all that the kernel takes."""
    tensor = constant(bias)
    if bias is None or tensor is None or tensor.dtype is ir.DataType.FLOAT:
        return bias
    name = f"{name_of(bias)}.float32"
    known = graph.initializers.get(name)
    if known is not None:
        return known
    wide = lazy(
        tensor, lambda array: array.astype(np.float32), tuple(tensor.shape.numpy()), ir.DataType.FLOAT
    )
    return initializer(graph, name, wide)
