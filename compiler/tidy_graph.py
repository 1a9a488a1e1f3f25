"""Tidy a freshly exported graph: take out what only the tracer needed. Cheap, and never touches a weight.

before:  Shape → Slice → Concat → Reshape(x, ·)      after:  Reshape(x, [0, -1, 64])
         Slice(x, 0, end) · x / 1 · CastLike(x: f32, y: f32)      x

The tracer writes a symbolic shape on every value (``["B", "h*w", 64]``); two equal symbols are equal sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    IdentityEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from latentc.passes.weights import initializer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt


def tidy_graph(model: ir.Model, open_up: Callable[[ir.Graph], None] | None = None) -> None:
    """Rewrite ``model`` in place.

    Args:
        model: its weights must be graph inputs, so that nothing folds them.
        open_up: gives a graph that was traced at fixed sizes its axes back; its constants are initializers.
    """
    from onnxscript.optimizer import fold_constants

    fold_constants(model)
    if open_up is not None:
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        open_up(model.graph)
    _take_out_identities(model.graph)
    _settle_reshapes(model.graph)
    for clean in (
        IdentityEliminationPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        DeduplicateInitializersPass(),
        CommonSubexpressionEliminationPass(),
        RemoveUnusedNodesPass(),
        RemoveUnusedOpsetsPass(),
    ):
        clean(model)


def _take_out_identities(graph: ir.Graph) -> None:
    """Replace nodes that give their first input back."""
    for node in graph:
        if not _gives_first_input(node):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None or result.is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(result, source)
        graph.remove(node, safe=True)


def _gives_first_input(node: ir.Node) -> bool:
    if node.op_type == "Slice":
        # The step is 1 when absent; with it, an equal shape means that every element is kept in place.
        steps = _constant(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
        return steps is not None and bool((steps == 1).all()) and _same_shape(node)
    if node.op_type in ("Expand", "Squeeze"):
        # torch squeezes nothing where the size is not 1; the exporter writes a Squeeze all the same
        return _same_shape(node)
    if node.op_type in ("Div", "Mul"):
        factor = _constant(node.inputs[1])
        return factor is not None and factor.size == 1 and bool((factor == 1).all()) and _same_shape(node)
    if node.op_type in ("Cast", "CastLike"):
        source = node.inputs[0]
        return source is not None and source.dtype is not None and source.dtype == _cast_to(node)
    return False


def _cast_to(node: ir.Node) -> ir.DataType | None:
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int())
    like = node.inputs[1]
    return like.dtype if like is not None else None


def _same_shape(node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or result.shape is None:
        return False
    return _sizes(source.shape) == _sizes(result.shape) and "None" not in _sizes(source.shape)


def _settle_reshapes(graph: ir.Graph) -> None:
    """Give every Reshape whose shape is known but for one size a constant shape."""
    for node in graph:
        if node.op_type != "Reshape" or node.inputs[0] is None or _constant(node.inputs[1]) is not None:
            continue
        source, result = node.inputs[0].shape, node.outputs[0].shape
        if source is None or result is None:
            continue
        shape = reshape_constant(_sizes(source), _sizes(result))
        if shape is None:
            continue
        name = f"{node.outputs[0].name}_shape"
        constant = initializer(graph, name, ir.tensor(np.array(shape, dtype=np.int64)))
        node.replace_input_with(1, constant)
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)


def reshape_constant(source: Sequence[int | str], result: Sequence[int | str]) -> tuple[int, ...] | None:
    """The constant second input of a Reshape, or None when two sizes are unknown.

    Args:
        source: sizes before, numbers or symbols.
        result: sizes after.

    Returns:
        Numbers, 0 for a size copied from the same place in ``source`` and at most one -1.
    """
    shape: list[int] = []
    for place, size in enumerate(result):
        if isinstance(size, int):
            if size == 0:
                return None
            shape.append(size)
        elif place < len(source) and source[place] == size and size != "None":
            shape.append(0)
        else:
            shape.append(-1)
    return tuple(shape) if shape.count(-1) <= 1 else None


def _sizes(shape: ir.Shape) -> tuple[int | str, ...]:
    return tuple(size if isinstance(size, int) else str(size) for size in shape)


def _constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tensor.numpy() if tensor is not None else None
