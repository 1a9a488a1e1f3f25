"""Cast: turn a float32 graph into a float16 one for strongly typed TensorRT, but for islands.

    before   x: float32 ─ MatMul ─ Add ─ … ─ y: float32
    after    x: float32 ─ Cast ─ MatMul ─ Add ─ … ─ Cast ─ y: float32      float16 between the casts

Inputs and outputs keep the types that the family states; they are small, so the two casts cost nothing
next to a convolution. What float16 cannot hold stays float32: the operators of ``keep`` (squares and their
means, roots, exponentials) and everything that leads to a Sin or Cos (time steps up to 1000, positions).
LayerNormalization, GroupNormalization and Softmax take float16: their definition accumulates in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from latentc.errors import PassError
from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.options import limits
from latentc.passes.value_types import allowed_types, infer_types
from latentc.passes.weights import (
    Array,
    constant,
    initializer,
    lazy,
    matches,
    name_of,
    shape_of,
)

_LOW, _HIGH = ir.DataType.FLOAT16, ir.DataType.FLOAT
_LARGEST = 65504.0
_KEPT = ("Pow", "ReduceMean", "ReduceSum", "Sqrt", "Reciprocal", "Exp", "Log", "Range")


@dataclass(frozen=True)
class Cast(Pass):
    """Compute and store in float16 what float16 can hold."""

    name: ClassVar[str] = "cast"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = False

    keep: tuple[str, ...] = field(
        default=_KEPT, metadata=limits(None, None, "operators that stay in float32")
    )
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of nodes that stay in float32, * matches any text")
    )

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Retype every node that is no island, and put casts where the types meet."""
        infer_types(model.graph)
        islands = self._islands(model.graph)
        rewrite = _Rewrite(model.graph)
        changes: list[Change] = []
        for node in list(model.graph):
            if rewrite.is_stored_low(node):
                continue
            is_island = node in islands or not _can_be_low(node)
            if rewrite.retype(node, _HIGH if is_island else _LOW):
                changes.append(Change(name_of(node.outputs[0]), f"{node.op_type} in float16"))
        rewrite.finish()
        RemoveUnusedNodesPass()(model)
        refusals = tuple(
            Refusal(name_of(node.outputs[0]), f"{node.op_type} stays float32") for node in islands
        )
        return PassResult(model, tuple(changes), refusals)

    def _islands(self, graph: ir.Graph) -> dict[ir.Node, None]:
        """Nodes that stay float32, in graph order."""
        leading: set[ir.Node] = set()  # to a Sin or Cos
        for node in reversed(list(graph)):
            feeds_wave = any(user in leading or user.op_type in ("Sin", "Cos") for user in node.successors())
            if feeds_wave or node.op_type in ("Sin", "Cos"):
                leading.add(node)
        islands = {
            node
            for node in graph
            if node in leading or node.op_type in self.keep or matches(node.name or "", self.skip)
        }
        for node in graph:  # what lies between islands alone, such as the epsilon under a root
            users = node.successors()
            makers = [maker for maker in node.predecessors() if _is_float(maker)]
            if users and makers and islands.issuperset(users) and islands.issuperset(makers):
                islands.add(node)
        return {node: None for node in graph if node in islands and _is_float(node)}


class _Rewrite:
    """The state of one rewriting: which form of a value has which type."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._stored_low: dict[ir.Value, ir.Value] = {}
        self._was_float = {value for value in _values(graph) if value.dtype is _HIGH}

    def is_stored_low(self, node: ir.Node) -> bool:
        """Whether ``node`` only widens a constant that is stored in float16 already."""
        source = node.inputs[0] if node.op_type == "Cast" else None
        tensor = constant(source)
        if source is None or tensor is None or tensor.dtype is not _LOW or node.outputs[0].is_graph_output():
            return False
        self._stored_low[node.outputs[0]] = source
        return True

    def retype(self, node: ir.Node, dtype: ir.DataType) -> bool:
        """Let ``node`` compute in ``dtype``; True when something about it is float16 now."""
        first = node.inputs[0] if node.op_type == "Cast" else None
        if first is not None and first.dtype is _LOW and first not in self._was_float:
            return False  # the edge of an island already
        is_low = False
        for index, value in enumerate(node.inputs):
            if value is not None and value in self._was_float:
                wanted = dtype if _takes_float16(node, index) else _HIGH
                if wanted is _LOW and node.op_type == "Cast":
                    continue  # reads whatever there is
                node.replace_input_with(index, self._as(value, wanted, node))
                is_low = is_low or wanted is _LOW
        if node.op_type == "Cast" and node.attributes["to"].as_int() == _HIGH.value:
            node.attributes["to"] = ir.AttrInt64("to", dtype.value)
        if node.op_type == "ConstantOfShape" and dtype is _LOW and "value" in node.attributes:
            fill = node.attributes["value"].as_tensor().numpy().astype(np.float16)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(fill))
        for value in node.outputs:
            if value in self._was_float:
                value.type = ir.TensorType(dtype)  # clones share the type object, so it is never changed
                is_low = is_low or dtype is _LOW
        return is_low

    def finish(self) -> None:
        """Give the outputs of the graph their types back."""
        for index, value in enumerate(self._graph.outputs):
            if value in self._was_float and value.dtype is _LOW:
                name, shape = name_of(value), value.shape
                node = ir.node("Cast", [value], attributes={"to": _HIGH.value})
                value.name = f"{name}.float16"
                # the node that made it may be called as the output is, and two of one name do not load
                node.name, node.outputs[0].name = f"{name}.output", name
                node.outputs[0].dtype, node.outputs[0].shape = _HIGH, shape
                self._graph.append(node)
                self._graph.outputs[index] = node.outputs[0]

    def _as(self, value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        """``value`` in ``dtype``: itself, another form of the constant, or behind a Cast before ``user``."""
        if value in self._stored_low:
            return self._stored_low[value] if dtype is _LOW else value
        if value.dtype is dtype:
            return value
        if (value, dtype) not in self._casts:
            self._casts[value, dtype] = self._converted(value, dtype, user)
        return self._casts[value, dtype]

    def _converted(self, value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        ending = "float16" if dtype is _LOW else "float32"
        tensor = constant(value)
        if tensor is not None:
            name = name_of(value)
            low = lazy(tensor, lambda values: _narrowed(name, values), shape_of(tensor), _LOW)
            return initializer(self._graph, f"{name}.{ending}", low)
        node = ir.node("Cast", [value], attributes={"to": dtype.value})
        node.name = node.outputs[0].name = f"{name_of(value)}.{ending}"
        node.outputs[0].dtype, node.outputs[0].shape = dtype, value.shape
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)
        return node.outputs[0]


def _narrowed(name: str, values: Array) -> Array:
    """``values`` in float16; what fills masks, float32's own limits, becomes float16's."""
    wide = np.asarray(values, dtype=np.float32)
    limit = np.finfo(np.float32).max
    wide = np.where(np.abs(wide) >= limit, np.sign(wide) * np.float32(_LARGEST), wide)
    largest = float(np.abs(wide).max(initial=0))
    if not largest <= _LARGEST:
        raise PassError(
            f"cast: {name}",
            f"holds {largest:g}, float16 ends at {_LARGEST:g}",
            "keep the node that reads it in float32 with the option skip",
        )
    return wide.astype(np.float16)


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]


def _is_float(node: ir.Node) -> bool:
    return any(value.dtype in (_HIGH, _LOW) for value in node.outputs)


def _can_be_low(node: ir.Node) -> bool:
    """Whether the operator's definition lets all its float outputs be float16."""
    return all(
        "tensor(float16)" in types
        for value, types in zip(node.outputs, allowed_types(node, "outputs", len(node.outputs)), strict=True)
        if value.dtype is _HIGH
    )


def _takes_float16(node: ir.Node, index: int) -> bool:
    return "tensor(float16)" in allowed_types(node, "inputs", index + 1)[index]
