"""Fuse-attention: attention as the one operator whose kernel never writes the whole score matrix.

    before   z = MatMul(Softmax(MatMul(scale · Transpose(q), Transpose(k))), Transpose(v))
             y = Reshape(Transpose(z), [B, S, H · D])         q: [B, S, H, D], k and v: [B, T, H, D]
    after    y = MultiHeadAttention(Reshape(q), Reshape(k), Reshape(v)) {num_heads=H, scale}

onnxruntime's kernel keeps a block of scores in the cache; the scores of 4096 by 4096 pixels and eight heads
would be half a gigabyte, written and read four times.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.integer_product import DOMAIN
from latentc.passes.weights import initializer, name_of

_HEADS_FIRST, _TURNED = (0, 2, 1, 3), (0, 2, 3, 1)
_STEPS_BACK = 64
"""Nodes to look through for the Reshape that says how many heads there are."""


class _Broken(Exception):
    """The graph does not follow the pattern; the text says where."""


@dataclass(frozen=True)
class _Found:
    """An attention: what it reads, [B, T, H, D] each, the number on its scores, and what it ends in."""

    queries: ir.Value
    keys: ir.Value
    values: ir.Value
    scale: float
    heads: int
    merge: ir.Node


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Put onnxruntime's MultiHeadAttention in the place of scores, softmax and what they mix."""

    name: ClassVar[str] = "fuse-attention"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Replace every attention without a mask."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for node in list(model.graph):
            if node.op_type != "Softmax" or node.domain:
                continue
            try:
                found = _found(node)
            except _Broken as broken:
                refusals.append(Refusal(name_of(node.outputs[0]), str(broken)))
                continue
            name = name_of(found.merge.outputs[0])
            _replace(model.graph, found)
            changes.append(Change(name, f"attention of {found.heads} heads, fused"))
        RemoveUnusedNodesPass()(model)
        return PassResult(model, tuple(changes), tuple(refusals))


def _found(softmax: ir.Node) -> _Found:
    scores = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
    if scores is None or scores.op_type != "MatMul":
        raise _Broken("reads no product: a mask or a bias lies between")
    mix = _only_reader(softmax, "MatMul")
    merge = _only_reader(_only_reader(mix, "Transpose"), "Reshape")
    queries, query_scale = _source(scores.inputs[0], _HEADS_FIRST)
    keys, key_scale = _source(scores.inputs[1], _TURNED)
    values, value_scale = _source(mix.inputs[1], _HEADS_FIRST)
    if value_scale != 1:
        raise _Broken("scales its values")
    heads = _heads(values) or _heads(queries)
    if heads is None:
        raise _Broken("no Reshape says how many heads it has")
    return _Found(queries, keys, values, query_scale * key_scale, heads, merge)


def _only_reader(node: ir.Node, operator: str) -> ir.Node:
    value = node.outputs[0]
    uses = list(value.uses())
    if value.is_graph_output() or len(uses) != 1 or uses[0].node.op_type != operator or uses[0].idx != 0:
        raise _Broken(f"'{name_of(value)}' is not read by a {operator} alone")
    return uses[0].node


def _source(value: ir.Value | None, wanted: tuple[int, ...]) -> tuple[ir.Value, float]:
    """What ``value`` is after a Transpose by ``wanted`` in all, and the number it is multiplied by."""
    axes: tuple[int, ...] = (0, 1, 2, 3)
    scale = 1.0
    start = value
    while value is not None:
        if axes == wanted:
            return value, scale
        node = value.producer()
        if node is not None and node.op_type == "Transpose":
            permutation = node.attributes["perm"].as_ints()
            axes = tuple(permutation[axis] for axis in axes)
            value = node.inputs[0]
        elif node is not None and node.op_type == "Mul" and (number := _number(node.inputs[1])) is not None:
            scale *= number
            value = node.inputs[0]
        else:
            break
    raise _Broken(f"'{'' if start is None else name_of(start)}' is not cut into heads by a Transpose")


def _number(value: ir.Value | None) -> float | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return float(tensor.numpy().reshape(())) if tensor is not None and tensor.size == 1 else None


def _heads(value: ir.Value) -> int | None:
    """H of ``value`` [B, T, H, D], as the nearest Reshape before it says."""
    waiting, seen = deque([value]), 0
    while waiting and seen < _STEPS_BACK:
        node = waiting.popleft().producer()
        seen += 1
        if node is None or node.op_type == "MatMul":
            continue
        sizes = node.inputs[1] if node.op_type == "Reshape" else None
        shape = ir.convenience.get_const_tensor(sizes) if sizes is not None else None
        if shape is not None and shape.size == 4 and (heads := int(shape.numpy()[2])) > 0:
            return heads
        waiting.extend(source for source in node.inputs if source is not None)
    return None


def _replace(graph: ir.Graph, found: _Found) -> None:
    graph.opset_imports[DOMAIN] = 1
    name = name_of(found.merge.outputs[0])
    shape = graph.initializers.get("shape.tokens")
    if shape is None:
        shape = initializer(graph, "shape.tokens", ir.tensor(np.array([0, 0, -1], np.int64)))
    nodes: list[ir.Node] = []
    sides = (("queries", found.queries), ("keys", found.keys), ("values", found.values))
    for ending, value in sides:
        node = ir.node("Reshape", [value, shape])
        node.name = node.outputs[0].name = f"{name}.{ending}"
        nodes.append(node)
    attributes = {"num_heads": found.heads, "scale": found.scale}
    fused = ir.node(
        "MultiHeadAttention", [node.outputs[0] for node in nodes], attributes=attributes, domain=DOMAIN
    )
    output = found.merge.outputs[0]
    for node in (*nodes, fused):
        node.outputs[0].dtype = ir.DataType.FLOAT
    fused.outputs[0].shape = output.shape
    graph.insert_before(found.merge, [*nodes, fused])
    output.replace_all_uses_with(fused.outputs[0], replace_graph_outputs=True)
    graph.remove(found.merge, safe=True)
    fused.name = fused.outputs[0].name = name
