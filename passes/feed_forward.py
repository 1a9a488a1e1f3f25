"""Feed-forward: find the linears before and after a GELU."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from latentc.passes.weights import Linear, find_linears


def feed_forward_linears(graph: ir.Graph) -> Iterator[Linear]:
    """The linear that makes what a Gelu takes, and the one that multiplies what it gives, in graph order.

    A bias and a split (GEGLU) may lie between. A linear that also multiplies other channels is left out.
    """
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type == "Gelu":
            found |= {*_before(node), *_behind(node)}
    for linear in find_linears(graph):
        if len(linear.nodes) == 1 and linear.nodes[0] in found:
            yield linear


def _before(node: ir.Node) -> Iterator[ir.Node]:
    value = node.inputs[0]
    while value is not None and (maker := value.producer()) is not None:
        if maker.op_type == "MatMul":
            yield maker
        if maker.op_type not in ("Add", "Split", "Slice"):
            return
        value = maker.inputs[0]


def _behind(node: ir.Node) -> Iterator[ir.Node]:
    for use in node.outputs[0].uses():
        if use.node.op_type == "MatMul" and use.idx == 0:
            yield use.node
        elif use.node.op_type == "Mul":
            yield from (one.node for one in use.node.outputs[0].uses() if one.node.op_type == "MatMul")
