"""Call work: what one call of a component multiplies and moves, node by node, on a graph without weights.

What it takes on a device is the roofline of latentc.recipes.roofline over these nodes: what matrices are
multiplied at the speed that is sustained for their kind, everything else at the bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from latentc.compiler.forecast.weightless_graph import TORCH
from latentc.passes.dequantized import codes_behind
from latentc.passes.weights import constant, shape_of
from latentc.recipes.choice import Choice
from latentc.recipes.roofline import Roofline


class Kind(Choice):
    """What a node multiplies, or that it only moves numbers."""

    FLOAT_LINEAR = "float linear"
    INT8_LINEAR = "int8 linear"
    INT4_LINEAR = "int4 linear"
    FLOAT_CONVOLUTION = "float convolution"
    INT8_CONVOLUTION = "int8 convolution"
    ATTENTION = "attention"
    GROUP_NORM = "group norm"
    MOVING = "moving"


@dataclass(frozen=True)
class Work:
    """One node, for one picture.

    Args:
        kind: of it.
        operations: multiplications and additions.
        numbers: read and written that are no weights.
        weights: numbers of its weight.
        weight_bytes: as they are stored; floats count 4.
        scores: of attention, queries times keys over all heads; 0 elsewhere.
    """

    kind: Kind
    operations: int
    numbers: int
    weights: int = 0
    weight_bytes: int = 0
    scores: int = 0


@dataclass(frozen=True)
class Rates:
    """How fast a device with its runtime is.

    Args:
        gops: 10⁹ operations a second that large products sustain, by kind; none for norms and moving.
        bandwidth_gb_s: 10⁹ bytes a second.
        overlaps: moving hides behind arithmetic.
        node_us: what a node costs besides.
        float_bytes: of a number that nobody quantized.
        fuses: attention never writes its scores.
        norm_passes: how often a group norm goes over its numbers.
    """

    gops: Mapping[Kind, float]
    bandwidth_gb_s: float
    overlaps: bool
    node_us: float
    float_bytes: int
    fuses: bool
    norm_passes: int = 1

    def seconds(self, works: Iterable[Work], pictures: int = 1) -> float:
        """What ``works`` take for ``pictures`` at once."""
        return sum(self._of(work, pictures) for work in works)

    def _of(self, work: Work, pictures: int) -> float:
        floats = work.kind in (Kind.FLOAT_LINEAR, Kind.FLOAT_CONVOLUTION)
        stored = self.float_bytes * work.weights if floats else work.weight_bytes
        numbers = work.numbers
        if work.kind is Kind.ATTENTION and not self.fuses:
            numbers += 4 * work.scores  # written and read between the products and softmax
        moving = (self.float_bytes * pictures * numbers + stored) / (1e9 * self.bandwidth_gb_s)
        if work.kind is Kind.GROUP_NORM:
            return self.norm_passes * (moving + 1e-6 * self.node_us)
        if work.kind is Kind.MOVING:
            return moving + 1e-6 * self.node_us
        computing = pictures * work.operations / (1e9 * self.gops[work.kind])
        both = max(computing, moving) if self.overlaps else computing + moving
        return both + 1e-6 * self.node_us


def rates_of(roofline: Roofline, float_bytes: int, *, fuses: bool) -> Rates:
    """Of a device whose roofline is known for linears: convolutions and attention multiply as those do.

    INT8 × INT8 is twice as fast as floats where the arithmetic units are those of Orin.
    """
    floats = roofline.float_products.gops
    return Rates(
        {
            Kind.FLOAT_LINEAR: floats,
            Kind.INT8_LINEAR: roofline.int8_products.gops,
            Kind.INT4_LINEAR: roofline.int4_products.gops,
            Kind.FLOAT_CONVOLUTION: floats,
            Kind.INT8_CONVOLUTION: 2 * floats if roofline.overlaps else roofline.int8_products.gops,
            Kind.ATTENTION: floats,
        },
        roofline.bandwidth_gb_s,
        roofline.overlaps,
        roofline.node_us,
        float_bytes,
        fuses,
    )


def works_of(model: ir.Model, *, fuses: bool = False) -> tuple[Work, ...]:
    """Every node of ``model``, a weightless graph with or without passes over it.

    Args:
        model: inner values have their shapes, but for what passes have put in.
        fuses: leave out what a compiler makes part of the node before.
    """
    return tuple(_works(model, fuses))


# what a compiler neither fuses nor leaves out
_ALONE = ("layer_norm", "rms_norm", "softmax", "cat", "interpolate", "embedding", "Gather")
_FREE = ("DequantizeLinear", "QuantizeLinear", "Cast")


def _works(model: ir.Model, fuses: bool) -> Iterator[Work]:
    for node in model.graph:
        given = _numbers(node.outputs[0]) if node.outputs else 0
        taken = sum(_numbers(value) for value in node.inputs if value is not None and not _is_stored(value))
        if node.op_type in ("MatMul", "Conv") and not node.domain and _weight(node) is not None:
            yield _product(node)
        elif node.op_type == "scaled_dot_product_attention":
            yield _attention(node, taken + given)
        elif node.op_type in ("matmul", "bmm", "__matmul__") and node.domain == TORCH:
            inner = shape_or_empty(node.inputs[0])[-1:] or (1,)
            yield Work(Kind.ATTENTION, 2 * given * inner[0], taken + given)
        elif node.op_type in _FREE:
            continue
        elif node.op_type == "group_norm":
            yield Work(Kind.GROUP_NORM, 0, taken + given)
        elif not fuses or node.op_type in _ALONE:
            yield Work(Kind.MOVING, 0, taken + given)


def _product(node: ir.Node) -> Work:
    codes, weight = codes_behind(node.inputs[1]), _weight(node)
    shape = () if weight is None else shape_of(weight)
    count = math.prod(shape)
    source = shape_or_empty(node.inputs[0])
    is_linear = node.op_type == "MatMul"
    if is_linear:
        rows = math.prod(source[:-1]) if source else _rows(node)
        given, taken = rows * shape[-1], rows * shape[0]
        operations = 2 * rows * count
    else:
        given, taken = _numbers(node.outputs[0]), math.prod(source)
        operations = 2 * given * math.prod(shape[1:])
    kind = Kind.FLOAT_LINEAR if is_linear else Kind.FLOAT_CONVOLUTION
    stored = 4 * count
    if codes is not None:
        stored = codes.nbytes
        if not is_linear:
            kind = Kind.INT8_CONVOLUTION
        else:
            kind = Kind.INT4_LINEAR if codes.dtype is ir.DataType.INT4 else Kind.INT8_LINEAR
            stored += 4 * math.prod(shape_or_empty(_dequantize(node).inputs[1]))
    return Work(kind, operations, given + taken, count, stored)


def _attention(node: ir.Node, numbers: int) -> Work:
    query, key = shape_or_empty(node.inputs[0]), shape_or_empty(node.inputs[1])
    scores = math.prod(query[:-1]) * key[-2]
    return Work(Kind.ATTENTION, 4 * scores * query[-1], numbers, scores=scores)


def _dequantize(node: ir.Node) -> ir.Node:
    value = node.inputs[1]
    producer = value.producer() if value is not None else None
    if producer is None:
        raise AssertionError("codes_behind found a DequantizeLinear here")
    return producer


def _weight(node: ir.Node) -> ir.TensorProtocol | None:
    """What ``node`` multiplies by: its constant, or the codes behind it."""
    return constant(node.inputs[1]) or codes_behind(node.inputs[1])


def _rows(node: ir.Node) -> int:
    """Of a thin product whose input has no shape: those of its output's reader that has one."""
    source = node.inputs[0]
    producer = source.producer() if source is not None else None
    while producer is not None and producer.inputs:
        shape = shape_or_empty(producer.inputs[0])
        if shape:
            return math.prod(shape[:-1])
        first = producer.inputs[0]
        producer = first.producer() if first is not None else None
    return 1


def _is_stored(value: ir.Value) -> bool:
    return constant(value) is not None or codes_behind(value) is not None


def _numbers(value: ir.Value | None) -> int:
    return math.prod(shape_or_empty(value)) if value is not None and value.shape is not None else 0


def shape_or_empty(value: ir.Value | None) -> tuple[int, ...]:
    """The shape of ``value``; empty for none and for what passes put in without one."""
    if value is None or value.shape is None:
        return ()
    return tuple(side if isinstance(side, int) else 1 for side in value.shape)
