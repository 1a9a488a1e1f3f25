"""Canonicalize: bring an exported graph into the one form that the other passes and the targets work on.

    before   y = Gemm(x, w, b) {transB=1}        y = MatMul(x, Transpose(w))      w: float32[N, K]
    after    y = Add(MatMul(x, w), b)            y = MatMul(x, w)                 w: float32[K, N]

Weights are transposed when they are written, not here. onnxruntime fuses 4-bit weights only in this form
(Gemm with transB and Transpose behind DequantizeLinear both run unfused, three times slower). Identities,
constant arithmetic on small tensors, dead nodes, unused weights and unused opsets go; every node gets a
name of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.weights import (
    Array,
    constant,
    initializer,
    lazy,
    name_of,
    read,
    replace_initializer,
    shape_of,
)

_SMALL = 1024
"""Elements: arithmetic on constants up to this size is done here; larger results would only cost bytes."""
_NOT_FOLDED = ("QuantizeLinear", "DequantizeLinear", "RandomNormal", "RandomUniform", "Constant", "Cast")


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Gemm and transposed constants become MatMul with [K, N]; what computes nothing goes."""

    name: ClassVar[str] = "canonicalize"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Rewrite until nothing more changes."""
        graph = model.graph
        refusals: list[Refusal] = []
        changes = list(_lift_constants(model))
        for node in list(graph):
            changes += _without_identity(graph, node)
        for node in list(graph):
            changes += _folded(graph, node)
        for node in list(graph):
            changes += _transposed(graph, node)
        for node in list(graph):
            if node.op_type == "Gemm" and not node.domain:
                why = _gemm_obstacle(node)
                if why is None:
                    changes.append(_without_gemm(graph, node))
                else:
                    refusals.append(Refusal(name_of(node.outputs[0]), why))
        changes += _without_dead_code(model)
        changes += _named(graph)
        return PassResult(model, tuple(changes), tuple(refusals))


def _lift_constants(model: ir.Model) -> Iterator[Change]:
    before = [name_of(node.outputs[0]) for node in model.graph if node.op_type == "Constant"]
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    after = {name_of(node.outputs[0]) for node in model.graph if node.op_type == "Constant"}
    yield from (Change(name, "constant node to initializer") for name in before if name not in after)


def _without_identity(graph: ir.Graph, node: ir.Node) -> Iterator[Change]:
    source, result = node.inputs[0] if node.inputs else None, node.outputs[0]
    if source is None or not _is_identity(node, source):
        return
    if result.is_graph_output():
        if source.producer() is None or source.is_graph_output() or len(node.outputs) > 1:
            return  # an output must have a node that makes it
        name = name_of(result)
        source.shape, source.type = result.shape, result.type or source.type
        result.replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        source.name = name
        yield Change(name, f"{node.op_type} that changes nothing, removed")
        return
    result.replace_all_uses_with(source)
    graph.remove(node, safe=True)
    yield Change(name_of(result), f"{node.op_type} that changes nothing, removed")


def _is_identity(node: ir.Node, source: ir.Value) -> bool:
    if node.domain:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Cast":
        return source.dtype is not None and source.dtype.value == node.attributes["to"].as_int()
    if node.op_type == "Transpose" and "perm" in node.attributes:
        permutation = node.attributes["perm"].as_ints()
        return list(permutation) == list(range(len(permutation)))
    return False


def _folded(graph: ir.Graph, node: ir.Node) -> Iterator[Change]:
    """Compute ``node`` now when its inputs are small constants."""
    if node.domain or node.op_type in _NOT_FOLDED or len(node.outputs) != 1 or not node.inputs:
        return
    tensors = [None if value is None else constant(value) for value in node.inputs]
    if any(
        value is not None and (tensor is None or math.prod(shape_of(tensor)) > _SMALL)
        for value, tensor in zip(node.inputs, tensors, strict=True)
    ):
        return
    result = node.outputs[0]
    if result.is_graph_output() or any(
        attribute.type is ir.AttributeType.GRAPH for attribute in node.attributes.values()
    ):
        return
    values = _evaluate(node, [None if tensor is None else read(tensor) for tensor in tensors])
    if values.size > _SMALL:
        return
    name = name_of(result)
    result.name = f"{name}.unfolded"
    result.replace_all_uses_with(initializer(graph, name, ir.tensor(values)))
    graph.remove(node, safe=True)
    yield Change(name, f"{node.op_type} of constants, computed")


def _evaluate(node: ir.Node, inputs: list[Array | None]) -> Array:
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [f"input_{index}" for index in range(len(inputs))]
    proto = ir.to_proto(node)
    del proto.input[:], proto.output[:]
    proto.input.extend("" if array is None else name for name, array in zip(names, inputs, strict=True))
    proto.output.append("result")
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name="result")],
    )
    opset = node.graph.opset_imports[""] if isinstance(node.graph, ir.Graph) else 21
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    (result,) = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(result)


def _transposed(graph: ir.Graph, node: ir.Node) -> Iterator[Change]:
    """Fold a Transpose of a weight into the weight."""
    source = node.inputs[0] if node.op_type == "Transpose" and not node.domain else None
    tensor = constant(source)
    if source is None or tensor is None or node.outputs[0].is_graph_output():
        return
    sides = shape_of(tensor)
    if "perm" in node.attributes:
        permutation = tuple(node.attributes["perm"].as_ints())
    else:
        permutation = tuple(reversed(range(len(sides))))
    result = node.outputs[0]
    result.replace_all_uses_with(_permuted(graph, source, permutation, node))
    graph.remove(node, safe=True)
    yield Change(name_of(source), f"Transpose {list(permutation)} folded into the weight")


def _permuted(graph: ir.Graph, weight: ir.Value, permutation: tuple[int, ...], user: ir.Node) -> ir.Value:
    """The weight with its axes permuted; it keeps its name unless something else reads it as it was."""
    tensor = weight.const_value
    if tensor is None:
        raise AssertionError("a constant has a value")
    shape = tuple(shape_of(tensor)[axis] for axis in permutation)
    turned = lazy(tensor, lambda values: np.transpose(values, permutation), shape, tensor.dtype, 0)  # a view
    if all(use.node is user for use in weight.uses()):
        return replace_initializer(graph, weight, turned)
    name = f"{name_of(weight)}.transposed"
    return graph.initializers[name] if name in graph.initializers else initializer(graph, name, turned)


def _gemm_obstacle(node: ir.Node) -> str | None:
    """Why this Gemm stays a Gemm; None when it can become MatMul and Add."""
    if constant(node.inputs[1]) is None:
        return "its second input is computed, so it is no linear"
    if _number(node, "transA", 0):
        return "its first input is transposed"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and constant(bias) is None:
        return "its bias is computed"
    return None


def _without_gemm(graph: ir.Graph, node: ir.Node) -> Change:
    weight, output = node.inputs[1], node.outputs[0]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None:
        raise AssertionError("a Gemm has a weight")
    if _number(node, "transB", 0):
        weight = _permuted(graph, weight, (1, 0), node)
    weight = _scaled(graph, weight, _number(node, "alpha", 1.0), node)
    multiply = ir.node("MatMul", [node.inputs[0], weight])
    multiply.name = multiply.outputs[0].name = f"{name_of(output)}.product"
    multiply.outputs[0].type, multiply.outputs[0].shape = output.type, output.shape
    new = [multiply]
    if bias is not None:
        bias = _scaled(graph, bias, _number(node, "beta", 1.0), node)
        new.append(ir.node("Add", [multiply.outputs[0], bias]))
    name = name_of(output)
    last = new[-1].outputs[0]
    last.type, last.shape = output.type, output.shape
    graph.insert_before(node, new)
    output.replace_all_uses_with(last, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new[-1].name = last.name = name
    return Change(name, "Gemm to MatMul and Add" if bias is not None else "Gemm to MatMul")


def _scaled(graph: ir.Graph, weight: ir.Value, factor: float, user: ir.Node) -> ir.Value:
    tensor = weight.const_value
    if tensor is None or factor == 1.0:
        return weight

    scaled = lazy(
        tensor,
        lambda values: np.multiply(values.astype(np.float32), np.float32(factor)),
        shape_of(tensor),
        tensor.dtype,
    )
    if all(use.node is user for use in weight.uses()):
        return replace_initializer(graph, weight, scaled)
    return initializer(graph, f"{name_of(weight)}.times.{factor:g}", scaled)


def _number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def _without_dead_code(model: ir.Model) -> Iterator[Change]:
    nodes = {name_of(node.outputs[0]) for node in model.graph}
    weights = set(model.graph.initializers)
    opsets = set(model.opset_imports)
    RemoveUnusedNodesPass()(model)
    RemoveUnusedOpsetsPass()(model)
    nodes -= {name_of(node.outputs[0]) for node in model.graph}
    yield from (Change(name, "is read by nothing, removed") for name in sorted(nodes))
    for name in sorted(weights - set(model.graph.initializers)):
        yield Change(name, "weight that is read by nothing, removed")
    for domain in sorted(opsets - set(model.opset_imports)):
        yield Change(domain, "opset that no node uses, removed")


def _named(graph: ir.Graph) -> Iterator[Change]:
    """Give every node a name that no other has: its own, or that of its first output."""
    taken: set[str] = set()
    for node in graph:
        if not node.name or node.name in taken:
            node.name = name_of(node.outputs[0])
            yield Change(node.name, "node named for its output")
        taken.add(node.name)
