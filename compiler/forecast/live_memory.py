"""Live memory: the most that a graph's inner values take at a moment, when each goes after its last reader.

It is what a runtime that reuses memory cannot do without. Linears, norms and additions count as torch calls
them; what a runtime holds besides while it runs one node is added for that node:

    attention        scores and their softmax, unless the runtime's kernel never writes them
    group_norm       two more of its size in onnxruntime, which runs it as ten nodes
    int8 Conv        patches of its input in bytes and sums in 32 bits, onnxruntime's ConvInteger
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from latentc.compiler.forecast.call_work import shape_or_empty
from latentc.passes.dequantized import codes_behind
from latentc.passes.weights import constant, shape_of

LARGEST_FUSED_HEAD = 256
"""Numbers a head may have for TensorRT's fused attention; wider ones (a VAE's) write their scores."""


@dataclass(frozen=True)
class Holding:
    """What a runtime holds while it runs.

    Args:
        float_bytes: of a number.
        fuses_attention: scores are not written, in heads of LARGEST_FUSED_HEAD and less.
        decomposes_norms: group norms run as many nodes.
        unfolds_convolutions: INT8 convolutions write patches of their input.
    """

    float_bytes: int
    fuses_attention: bool
    decomposes_norms: bool
    unfolds_convolutions: bool


ONNXRUNTIME = Holding(4, fuses_attention=False, decomposes_norms=True, unfolds_convolutions=True)
TENSORRT = Holding(2, fuses_attention=True, decomposes_norms=False, unfolds_convolutions=False)


def live_bytes(model: ir.Model, holding: Holding, pictures: int = 1) -> int:
    """The largest moment of ``model``, weights left out.

    Args:
        model: a weightless graph, traced for one picture.
        holding: the runtime's.
        pictures: drawn at once.
    """
    graph = model.graph
    last: dict[ir.Value, int] = {}
    for place, node in enumerate(graph):
        for value in node.inputs:
            if value is not None:
                last[value] = place
    for value in graph.outputs:
        last[value] = len(graph)
    leaving: dict[int, list[ir.Value]] = {}
    for value, place in last.items():
        leaving.setdefault(place, []).append(value)
    sizes = {value: _numbers(value) for value in graph.inputs}
    live = sum(sizes.values())
    most = live
    for place, node in enumerate(graph):
        for value in node.outputs:
            if value in last and not _is_dequantized(node):
                sizes[value] = _numbers(value)
                live += sizes[value]
        most = max(most, live + sum(_beside(node, holding)))
        for value in leaving.get(place, ()):
            live -= sizes.pop(value, 0)
    return pictures * holding.float_bytes * most


def _beside(node: ir.Node, holding: Holding) -> Iterator[int]:
    """Numbers that only ``node`` itself holds."""
    if node.op_type == "scaled_dot_product_attention":
        query, key = shape_or_empty(node.inputs[0]), shape_or_empty(node.inputs[1])
        if not holding.fuses_attention or query[-1] > LARGEST_FUSED_HEAD:
            yield 2 * math.prod(query[:-1]) * key[-2]
    elif node.op_type == "group_norm" and holding.decomposes_norms:
        yield 2 * _numbers(node.outputs[0])
    elif node.op_type == "Conv" and holding.unfolds_convolutions:
        codes = codes_behind(node.inputs[1])
        if codes is not None:
            given = _numbers(node.outputs[0])
            kernel = shape_of(codes)
            patches = given // kernel[0] * math.prod(kernel[1:])
            yield given + patches // holding.float_bytes


def _is_dequantized(node: ir.Node) -> bool:
    """Whether ``node`` widens what is stored, which runtimes do in the product that reads it."""
    return codes_behind(node.outputs[0]) is not None or (
        node.op_type == "Cast" and constant(node.inputs[0]) is not None
    )


def _numbers(value: ir.Value) -> int:
    return math.prod(shape_or_empty(value)) if value.shape is not None else 0
