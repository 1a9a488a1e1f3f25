"""Expand-group-norm: write GroupNormalization as operators that onnxruntime's CPU has kernels for.

    before   y = GroupNormalization(x, scale, bias) {num_groups=G}       x: [B, C, …]
    after    grouped = Reshape(x, [0, G, -1])
             normal = InstanceNormalization(grouped, ones, zeros)
             y = Reshape(normal, Shape(x)) * scale + bias                 scale, bias: [C, 1, …]

onnxruntime has no CPU kernel for the operator of opset 21 and takes it apart into some twenty nodes, casts
among them. TensorRT has one, so only targets of onnxruntime run this pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.weights import constant, initializer, lazy, name_of, shape_of


@dataclass(frozen=True)
class ExpandGroupNorm(Pass):
    """GroupNormalization becomes InstanceNormalization between two Reshapes, with a Mul and an Add."""

    name: ClassVar[str] = "expand-group-norm"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Expand every GroupNormalization whose scale, bias and rank are known."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for node in list(model.graph):
            if node.op_type == "GroupNormalization" and not node.domain:
                name = name_of(node.outputs[0])
                if constant(node.inputs[1]) is None or constant(node.inputs[2]) is None:
                    refusals.append(Refusal(name, "its scale or bias is computed"))
                else:
                    _expand(model.graph, node)
                    changes.append(Change(name, "GroupNormalization to InstanceNormalization"))
        return PassResult(model, tuple(changes), tuple(refusals))


def _expand(graph: ir.Graph, node: ir.Node) -> None:
    x, output = node.inputs[0], node.outputs[0]
    name = name_of(output)
    groups = node.attributes["num_groups"].as_int()
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    shape = initializer(graph, f"{name}.groups", ir.tensor(np.array([0, groups, -1], np.int64)))
    ones = initializer(graph, f"{name}.ones", ir.tensor(np.ones(groups, np.float32)))
    zeros = initializer(graph, f"{name}.zeros", ir.tensor(np.zeros(groups, np.float32)))
    sides = ir.node("Shape", [x])
    grouped = ir.node("Reshape", [x, shape])
    normal = ir.node(
        "InstanceNormalization", [grouped.outputs[0], ones, zeros], attributes={"epsilon": epsilon}
    )
    back = ir.node("Reshape", [normal.outputs[0], sides.outputs[0]])
    scaled = ir.node("Mul", [back.outputs[0], _column(graph, node, 1, "scale")])
    shifted = ir.node("Add", [scaled.outputs[0], _column(graph, node, 2, "bias")])
    new = [sides, grouped, normal, back, scaled, shifted]
    for made, ending in zip(new, ("sides", "grouped", "normal", "back", "scaled", ""), strict=True):
        made.outputs[0].type = ir.TensorType(ir.DataType.INT64 if made is sides else ir.DataType.FLOAT)
        made.name = f"{name}.{ending}" if ending else name
        if ending:
            made.outputs[0].name = made.name
    graph.insert_before(node, new)
    shifted.outputs[0].shape = output.shape
    output.replace_all_uses_with(shifted.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    shifted.outputs[0].name = name


def _column(graph: ir.Graph, node: ir.Node, index: int, what: str) -> ir.Value:
    """The scale or bias [C] as [C, 1, 1], which meets [B, C, h, w] axis by axis."""
    value = node.inputs[index]
    tensor = constant(value)
    if value is None or tensor is None:
        raise AssertionError(f"a GroupNormalization has a {what}")
    name = f"{name_of(value)}.column"
    if name in graph.initializers:
        return graph.initializers[name]
    shape = (*shape_of(tensor), 1, 1)
    return initializer(graph, name, lazy(tensor, lambda values: values.reshape(shape), shape, tensor.dtype))
