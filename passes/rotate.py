"""Rotate: mix the channels of what linears multiply within blocks, so that no channel sticks out.

    before   y = MatMul(x, w)                            w: float32[K, N]
    after    x.blocks = Reshape(x, [-1, K / b, b])
             x.turned = MatMul(x.blocks, H)              H: ±1 [b, b], a Hadamard matrix
             x.rotated = Reshape(x.turned, Shape(x))
             y = MatMul(x.rotated, w)                    w: Hᵀ · w / b in each block of b inputs

The same function, since H Hᵀ = b. Blocks instead of one matrix over all channels keep a token's strong
channels from spilling over everything (ConvRot, arXiv 2512.03673; QuaRot, arXiv 2404.00456). Linears that
read the same x share the rotation. Where held-out rows lose no less by it, the layer stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal, Trial
from latentc.passes.int4_layers import require_canonical_linears
from latentc.passes.layer_rows import rows_of
from latentc.passes.options import limits, require_4_or_8_bits, require_power_of_two
from latentc.passes.rounded_error import RoundingToCome
from latentc.passes.shared_inputs import SharedInput, shared_inputs
from latentc.passes.weights import (
    REWRITES_INPUT,
    Array,
    Floats,
    initializer,
    lazy,
    name_of,
    replace_initializer,
)

ROTATED = "latentc.rotated"
"""Node metadata on a linear that rotate has considered."""


@dataclass(frozen=True)
class Rotate(Pass):
    """Multiply blocks of what linears read by a Hadamard matrix, and their weights by its inverse."""

    name: ClassVar[str] = "rotate"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    block: int = field(default=256, metadata=limits(2, 1024, "largest block: a power of two"))
    bits: int = field(default=4, metadata=limits(4, 8, "of the activations to come: 4 or 8"))
    group: int = field(default=64, metadata=limits(16, 256, "of the quantization to come"))
    rank: int = field(default=32, metadata=limits(0, 4096, "of the low-rank branch to come; 0 for none"))
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights to leave alone, * matches any text")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)
        require_power_of_two(self.name, self.block, "block", 256)
        require_4_or_8_bits(self.name, self.bits)

    @property
    def needs_calibration(self) -> bool:
        """Recorded rows decide."""
        return True

    @property
    def needs_rows(self) -> bool:
        """Recorded rows decide."""
        return True

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with float [K, N] constants."""
        require_canonical_linears(self.name, model)

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Rotate every value that linears read, where held-out rows say that it helps."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        rounding = RoundingToCome(self.bits, self.group, self.rank)
        for shared, refusal in list(shared_inputs(model.graph, self.group, self.skip, ROTATED)):
            if refusal is not None:
                refusals.append(refusal)
                continue
            weight = shared.weight(self.name)
            rows = rows_of(self.name, shared.linears[0], context).held_out
            size = largest_block(len(weight), self.block)
            before = rounding.error(weight, rows)
            after = rounding.error(turned_back(weight, size), turned(rows, size))
            better = after < before
            shared.mark(ROTATED, self.name)
            for linear in shared.linears:
                context.ledger.try_out(Trial(linear.name, self.name, "as it is", before, not better))
                context.ledger.try_out(Trial(linear.name, self.name, f"blocks of {size}", after, better))
            if better:
                _rotate(model.graph, shared, len(weight), size)
                changes.append(
                    Change(shared.names, f"blocks of {size}: held-out error {before:.4f} to {after:.4f}")
                )
            else:
                refusals.append(
                    Refusal(shared.names, f"blocks of {size} are no better on held-out rows ({after:.4f})")
                )
        return PassResult(model, tuple(changes), tuple(refusals))


def largest_block(K: int, most: int) -> int:
    """The largest power of two that divides ``K`` and is at most ``most``."""
    return min(K & -K, most)


def hadamard(size: int) -> Floats:
    """Sylvester's matrix of ±1, [size, size], size a power of two; symmetric, H H = size."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]).astype(np.float32)
    return matrix


def turned(rows: Floats, size: int) -> Floats:
    """``rows`` [R, K] times H in each block of ``size`` columns."""
    blocks = rows.reshape(len(rows), -1, size) @ hadamard(size)
    return np.asarray(blocks.reshape(rows.shape), dtype=np.float32)


def turned_back(weight: Floats, size: int) -> Floats:
    """The weight [K, N] that gives for turned rows what ``weight`` gives for rows."""
    blocks = hadamard(size) @ weight.reshape(-1, size, weight.shape[1])
    return np.asarray(blocks.reshape(weight.shape) / np.float32(size), dtype=np.float32)


def _rotate(graph: ir.Graph, shared: SharedInput, K: int, size: int) -> None:
    stem = name_of(shared.value)
    first = shared.nodes[0]
    matrix = _matrix(graph, size)
    blocks_shape = initializer(
        graph, f"{stem}.blocks_shape", ir.tensor(np.array([-1, K // size, size], np.int64))
    )
    shape = ir.node("Shape", [shared.value])
    blocks = ir.node("Reshape", [shared.value, blocks_shape])
    product = ir.node("MatMul", [blocks.outputs[0], matrix])
    whole = ir.node("Reshape", [product.outputs[0], shape.outputs[0]])
    for node, ending in ((shape, "whole_shape"), (blocks, "blocks"), (product, "turned"), (whole, "rotated")):
        node.name = node.outputs[0].name = f"{stem}.{ending}"
        node.outputs[0].dtype = ir.DataType.INT64 if node is shape else ir.DataType.FLOAT
        if node is not shape:
            node.metadata_props[REWRITES_INPUT] = Rotate.name
    whole.outputs[0].shape = shared.value.shape
    graph.insert_before(first, [shape, blocks, product, whole])
    for linear in shared.linears:
        source = linear.weight.const_value
        if source is None:
            raise PassError(Rotate.name, f"'{linear.name}' has no value", "report this graph")

        def back(array: Array) -> Array:
            return turned_back(array.astype(np.float32), size)

        replace_initializer(graph, linear.weight, lazy(source, back, linear.shape, ir.DataType.FLOAT))
        for node in linear.nodes:
            node.replace_input_with(0, whole.outputs[0])


def _matrix(graph: ir.Graph, size: int) -> ir.Value:
    """H of ``size`` in float32, stored as int8 once a graph, at the graph's beginning."""
    name = f"hadamard.{size}"
    stored = graph.initializers.get(name)
    if stored is not None:
        return next(iter(stored.uses())).node.outputs[0]
    stored = initializer(graph, name, ir.tensor(hadamard(size).astype(np.int8)))
    cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT.value})
    cast.name = cast.outputs[0].name = f"{name}.float32"
    cast.outputs[0].dtype, cast.outputs[0].shape = ir.DataType.FLOAT, ir.Shape((size, size))
    graph.insert_before(graph[0], [cast])
    return cast.outputs[0]
