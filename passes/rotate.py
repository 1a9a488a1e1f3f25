"""Rotate: mix the channels of what linears multiply within blocks, so that no channel sticks out.

    before   y = MatMul(x, w)                            w: float32[K, N]
    after    x.blocks = Reshape(x, [-1, K / b, b])
             x.turned = MatMul(x.blocks, H)              H: ±1 [b, b], a Hadamard matrix
             x.rotated = Reshape(x.turned, Shape(x))
             y = MatMul(x.rotated, w)                    w: Hᵀ · w / b in each block of b inputs

The same function, since H Hᵀ = b. Blocks instead of one matrix over all channels keep a token's strong
channels from spilling over everything (ConvRot, arXiv 2512.03673; QuaRot, arXiv 2404.00456). Linears that
read the same x share the rotation. Where held-out rows lose no less by it, the layer stays as it is. Weights
that make x, alone or through heads of a multiple of b, take H, and no nodes do (latentc.passes.makers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.passes.channel_transform import ChannelTransform
from latentc.passes.input_rewrite import InputRewrite, Proposal, Reading
from latentc.passes.options import limits, require_power_of_two
from latentc.passes.weights import REWRITES_INPUT, Floats, initializer, name_of


@dataclass(frozen=True)
class Rotate(InputRewrite):
    """Multiply blocks of what linears read by a Hadamard matrix, and their weights by its inverse."""

    name: ClassVar[str] = "rotate"
    version: ClassVar[int] = 3
    considered: ClassVar[str] = "latentc.rotated"
    mixes_channels: ClassVar[bool] = True

    block: int = field(default=256, metadata=limits(2, 1024, "largest block: a power of two"))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.block, "block", 256)

    def propose(self, readings: Sequence[Reading], mixes: int) -> Proposal:
        """The largest blocks that fit."""
        size = largest_block(mixes, self.block)
        return Proposal(
            way=f"blocks of {size}",
            errors=tuple(
                self.rounding.error(turned_back(one.weight, size), turned(one.rows.held_out, size))
                for one in readings
            ),
            no_better=f"blocks of {size} are no better",
            transform=BlockHadamard(size),
        )


@dataclass(frozen=True)
class BlockHadamard(ChannelTransform):
    """T: H of ``size`` in each block of so many channels."""

    size: int

    def columns(self, array: Floats) -> Floats:
        """Each block times H."""
        return turned(array, self.size)

    def rows(self, weight: Floats) -> Floats:
        """H / size times each block."""
        return turned_back(weight, self.size)

    def nodes(self, graph: ir.Graph, value: ir.Value, K: int) -> list[ir.Node]:
        """Shape, Reshape, MatMul, Reshape."""
        stem, size = name_of(value), self.size
        matrix = _matrix(graph, size)
        blocks_shape = initializer(
            graph, f"{stem}.blocks_shape", ir.tensor(np.array([-1, K // size, size], np.int64))
        )
        shape = ir.node("Shape", [value])
        blocks = ir.node("Reshape", [value, blocks_shape])
        product = ir.node("MatMul", [blocks.outputs[0], matrix])
        whole = ir.node("Reshape", [product.outputs[0], shape.outputs[0]])
        endings = {"whole_shape": shape, "blocks": blocks, "turned": product, "rotated": whole}
        for ending, node in endings.items():
            node.name = node.outputs[0].name = f"{stem}.{ending}"
            node.outputs[0].dtype = ir.DataType.INT64 if node is shape else ir.DataType.FLOAT
            if node is not shape:
                node.metadata_props[REWRITES_INPUT] = Rotate.name
        whole.outputs[0].shape = value.shape
        return [shape, blocks, product, whole]


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
    """``rows`` [..., K] times H in each block of ``size`` columns."""
    blocks = rows.reshape(*rows.shape[:-1], -1, size) @ hadamard(size)
    return np.asarray(blocks.reshape(rows.shape), dtype=np.float32)


def turned_back(weight: Floats, size: int) -> Floats:
    """The weight [K, N] that gives for turned rows what ``weight`` gives for rows."""
    blocks = hadamard(size) @ weight.reshape(-1, size, weight.shape[1])
    return np.asarray(blocks.reshape(weight.shape) / np.float32(size), dtype=np.float32)


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
