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
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.passes.input_rewrite import InputRewrite, Proposal
from latentc.passes.layer_rows import Rows
from latentc.passes.options import limits, require_power_of_two
from latentc.passes.shared_inputs import SharedInput
from latentc.passes.weights import REWRITES_INPUT, Floats, initializer, name_of


@dataclass(frozen=True)
class Rotate(InputRewrite):
    """Multiply blocks of what linears read by a Hadamard matrix, and their weights by its inverse."""

    name: ClassVar[str] = "rotate"
    version: ClassVar[int] = 1
    considered: ClassVar[str] = "latentc.rotated"

    block: int = field(default=256, metadata=limits(2, 1024, "largest block: a power of two"))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.block, "block", 256)

    def propose(self, weight: Floats, rows: Rows) -> Proposal:
        """The largest blocks that fit."""
        size = largest_block(len(weight), self.block)
        return Proposal(
            way=f"blocks of {size}",
            error=self.rounding.error(turned_back(weight, size), turned(rows.held_out, size)),
            no_better=f"blocks of {size} are no better",
            rewrite=partial(_rotate, size=size),
        )


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


def _rotate(graph: ir.Graph, shared: SharedInput, size: int) -> None:
    stem = name_of(shared.value)
    K, _ = shared.linears[0].shape
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
    nodes = [shape, blocks, product, whole]
    shared.rewrite(graph, nodes, lambda weight: turned_back(weight, size), Rotate.name)


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
