"""Stored bytes: what a component's files take on each target, counted on a graph without weights.

    onnx         float32, INT4 and INT8 codes, float16 steps, each tensor on a multiple of 64 bytes
    ort-x86      every product's weights as INT8, their branches added
    ort-mobile   what onnxruntime makes of them: float32 steps, one for each 64 inputs beside INT8 codes
    rtx, jetson  floats in float16; rtx has the engine beside

Weights are counted exactly. What the files hold besides, names and nodes, is a figure for each operator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from latentc.compiler.stages.lower import lowering_passes
from latentc.compiler.stages.ort_format import INT8_BLOCK, LARGEST_WEIGHT_BYTES
from latentc.passes.base import PassContext
from latentc.passes.model_writer import INLINE_BYTES
from latentc.passes.weights import BRANCH_OF, constant, name_of, shape_of
from latentc.recipes.target import FloatType, Runtime, Target

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class StoredBytes:
    """The files of one component.

    Args:
        weights: constants.
        graph: nodes, names, and what aligns the constants.
        engine: a compiled engine beside them; 0 for none.
    """

    weights: int
    graph: int
    engine: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.graph + self.engine


@dataclass(frozen=True)
class _GraphBytes:
    """Of a file's nodes: of each operator of the traced graph, as it is exported, fused and named.

    Measured on the demo models' files (``make bench-plan`` says how well they hold).
    """

    node: int
    attention: int
    group_norm: int
    dequantize: int


_ONNX = _GraphBytes(node=230, attention=900, group_norm=750, dequantize=330)
_ORT = _GraphBytes(node=480, attention=2500, group_norm=11500, dequantize=330)
_KERNELS_BYTES = 550_000
"""What an engine holds besides weights, for each architecture and size: from the demo models' engines."""
_MOVES = ("transpose", "permute", "reshape", "contiguous", "__getitem__", "chunk", "to", "dropout")


def stored_bytes(model: ir.Model, target: Target, profiles: int = 1) -> StoredBytes:
    """Bytes of ``model`` on ``target``.

    Args:
        model: a weightless graph that the recipe's passes went over.
        target: for which it is lowered.
        profiles: sizes that engines are made for.
    """
    if target.runtime is Runtime.ONNXRUNTIME and target.name == "ort-mobile":
        whole = _onnx(model, FloatType.FLOAT32)
        if whole.weights <= LARGEST_WEIGHT_BYTES:
            return StoredBytes(sum(_in_ort(model)), _graph_bytes(model, _ORT))
        return whole
    if target.name == "ort-x86":
        context = PassContext()
        for one in lowering_passes(target):
            model = one(model, context).model
    stored = _onnx(model, target.float_type)
    if target.runtime is Runtime.TENSORRT_RTX:
        engines = profiles * len(target.compute_capabilities)
        return StoredBytes(stored.weights, stored.graph, engines * (stored.weights + _KERNELS_BYTES))
    return stored


def _onnx(model: ir.Model, float_type: FloatType) -> StoredBytes:
    weights = padding = 0
    for value in model.graph.initializers.values():
        tensor = constant(value)
        if tensor is None or not value.uses():
            continue
        size = tensor.nbytes
        if tensor.dtype is ir.DataType.FLOAT and float_type is FloatType.FLOAT16:
            size //= 2
        weights += size
        padding += -size % _ALIGNMENT_BYTES if size >= INLINE_BYTES else 0
    return StoredBytes(weights, padding + _graph_bytes(model, _ONNX))


def _in_ort(model: ir.Model) -> Iterator[int]:
    """Bytes of each constant as onnxruntime fuses it."""
    fused: set[str] = set()
    for node in model.graph:
        if node.op_type != "DequantizeLinear" or node.domain:
            continue
        codes, steps = constant(node.inputs[0]), _behind_cast(node.inputs[1])
        if codes is None or steps is None or node.inputs[0] is None:
            continue
        fused |= {name_of(node.inputs[0]), name_of(steps)}
        yield codes.nbytes
        shape, stored = shape_of(codes), constant(steps)
        count = 1 if stored is None else math.prod(shape_of(stored))
        is_product = any(use.node.op_type == "MatMul" for use in node.outputs[0].uses())
        if codes.dtype is ir.DataType.INT8 and is_product and count > 1:
            yield 4 * math.ceil(shape[0] / INT8_BLOCK) * count
        else:
            yield 4 * count if count > 1 else 2
    for name, value in model.graph.initializers.items():
        tensor = constant(value)
        if tensor is not None and name not in fused and value.uses():
            yield tensor.nbytes


def _behind_cast(value: ir.Value | None) -> ir.Value | None:
    node = value.producer() if value is not None else None
    return node.inputs[0] if node is not None and node.op_type == "Cast" else value


def _graph_bytes(model: ir.Model, known: _GraphBytes) -> int:
    total = 0
    for node in model.graph:
        if node.op_type == "DequantizeLinear":
            total += known.dequantize
        elif node.op_type == "scaled_dot_product_attention":
            total += known.attention
        elif node.op_type == "group_norm":
            total += known.group_norm
        elif BRANCH_OF in node.metadata_props or node.op_type not in _MOVES:
            total += known.node
    return total
