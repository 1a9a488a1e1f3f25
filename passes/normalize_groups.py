"""Normalize-groups: GroupNormalization by the one normalization of pictures that onnxruntime's CPU has.

    before   y = GroupNormalization(x, scale, bias) {num_groups=G}           x: [B, C, …]
    after    n = InstanceNormalization(Reshape(x, [B, G, -1]), 1, 0)
             y = Reshape(Reshape(n, [B, C, -1]) · scale[C, 1] + bias[C, 1], Shape(x))

onnxruntime takes a GroupNormalization apart into ten operators, half of which pass over the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.weights import constant, initializer, lazy, name_of, shape_of


@dataclass(frozen=True)
class NormalizeGroups(Pass):
    """Rewrite GroupNormalization for onnxruntime's CPU."""

    name: ClassVar[str] = "normalize-groups"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Replace every GroupNormalization with constant scale and bias."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for node in list(model.graph):
            if node.op_type != "GroupNormalization" or node.domain:
                continue
            name = name_of(node.outputs[0])
            if constant(node.inputs[1]) is None or constant(node.inputs[2]) is None:
                refusals.append(Refusal(name, "its scale or bias is computed"))
                continue
            _replace(model.graph, node)
            changes.append(Change(name, "by InstanceNormalization of its groups"))
        return PassResult(model, tuple(changes), tuple(refusals))


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    picture, output = node.inputs[0], node.outputs[0]
    name = name_of(output)
    groups = node.attributes["num_groups"].as_int()
    shape = _constant(graph, f"shape.groups.{groups}", np.array([0, groups, -1], np.int64))
    one = _constant(graph, f"ones.{groups}", np.ones(groups, np.float32))
    zero = _constant(graph, f"zeros.{groups}", np.zeros(groups, np.float32))
    rows = ir.node("Reshape", [picture, shape])
    normal = ir.node(
        "InstanceNormalization",
        [rows.outputs[0], one, zero],
        attributes={"epsilon": node.attributes.get_float("epsilon", 1e-5)},
    )
    tensor = constant(node.inputs[1])
    channels = 0 if tensor is None else tensor.size
    split = _constant(graph, f"shape.channels.{channels}", np.array([0, channels, -1], np.int64))
    pixels = ir.node("Reshape", [normal.outputs[0], split])
    scaled = ir.node("Mul", [pixels.outputs[0], _column(graph, node.inputs[1])])
    shifted = ir.node("Add", [scaled.outputs[0], _column(graph, node.inputs[2])])
    sizes = ir.node("Shape", [picture])
    whole = ir.node("Reshape", [shifted.outputs[0], sizes.outputs[0]])
    nodes = {
        "groups": rows,
        "normal": normal,
        "pixels": pixels,
        "scaled": scaled,
        "shifted": shifted,
        "sizes": sizes,
        "whole": whole,
    }
    for ending, new in nodes.items():
        new.name = new.outputs[0].name = f"{name}.{ending}"
        new.outputs[0].dtype = ir.DataType.INT64 if new is sizes else output.dtype or ir.DataType.FLOAT
    whole.outputs[0].shape = output.shape
    graph.insert_before(node, list(nodes.values()))
    output.replace_all_uses_with(whole.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    whole.name = whole.outputs[0].name = name


def _constant(
    graph: ir.Graph, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> ir.Value:
    known = graph.initializers.get(name)
    return known if known is not None else initializer(graph, name, ir.tensor(array))


def _column(graph: ir.Graph, vector: ir.Value | None) -> ir.Value:
    """``vector`` [C] as a constant [C, 1]."""
    tensor = constant(vector)
    if vector is None or tensor is None:
        raise AssertionError("it was a constant before")
    name = f"{name_of(vector)}.column"
    known = graph.initializers.get(name)
    shape = (*shape_of(tensor), 1)
    return known or initializer(
        graph, name, lazy(tensor, lambda array: array.reshape(shape), shape, tensor.dtype)
    )
