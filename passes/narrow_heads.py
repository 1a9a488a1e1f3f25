"""Narrow heads: give the heads of attention fewer channels by multiplying the weights around them.

before   q = Reshape(MatMul(x, wq) + bq, [B, S, H, D])      k likewise      q · kᵀ
after    the same with wq P and bq P, wk S, H heads of r: what all keys share does not reach the softmax

before   o = MatMul(Reshape(attention(v)), wo) + bo         v = MatMul(y, wv) + bv
after    the same with wv P, H heads of r, R wo for wo, and bo + m wo for bo
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from latentc.passes.attention import Projection, Reader, Scores, Values
from latentc.passes.head_factors import ValueMoments, Wide, block_diagonal, regression
from latentc.passes.head_moments import bias_of
from latentc.passes.weights import (
    Array,
    Floats,
    constant,
    finite_floats,
    initializer,
    lazy,
    name_of,
    read,
    read_floats,
    replace_initializer,
    shape_of,
)

_PASS = "compress-heads"


def narrow_scores(graph: ir.Graph, scores: Scores, queries: Wide, keys: Wide) -> None:
    """Let the heads of ``scores`` meet in r channels: q by ``queries`` [H, D, r], k by ``keys`` [H, D, r]."""
    _narrow(graph, scores.queries, queries)
    _narrow(graph, _without_bias(graph, scores.keys), keys)


def narrow_values(graph: ir.Graph, values: Values, moments: Sequence[ValueMoments], factors: Wide) -> None:
    """Let attention carry r channels a head: v by ``factors`` [H, D, r], each reader by what gives most back.

    Args:
        graph: to change.
        values: of one attention.
        moments: of each of its readers. Where their means are right, so is the mean of the result.
        factors: P.
    """
    carried = block_diagonal(factors)
    moved = np.zeros(len(carried), np.float32)
    sources = values.sources
    if len(sources) == 1:  # the probabilities sum to one, so its bias arrives whole
        moved = bias_of(sources[0])
        sources = (_without_bias(graph, sources[0]),)
    for source in sources:
        _narrow(graph, source, factors)
    for reader, known in zip(values.readers, moments, strict=True):
        back = regression(known, factors)
        mean = known.mean.astype(np.float64)
        shift = mean - (mean - moved) @ carried @ back
        _reread(graph, reader, back.astype(np.float32), shift.astype(np.float32))
    shape = constant(values.merge.inputs[1])
    if shape is None:
        raise AssertionError("the heads are put side by side by a constant shape")
    _reshape(graph, values.merge, [*read(shape).tolist()[:2], carried.shape[1]])
    for value in values.chain:
        value.shape = None  # as wide as r now


def _narrow(graph: ir.Graph, projection: Projection, factors: Wide) -> None:
    """Multiply weight and bias by ``factors`` [H, D, r], and cut into heads of r."""
    heads, width, narrow = factors.shape
    stored = factors.astype(np.float32)
    source = _source(projection.weight)
    K = shape_of(source)[0]

    def narrowed(weight: Array) -> Array:
        cut = finite_floats(weight, projection.name, _PASS).reshape(-1, heads, width).transpose(1, 0, 2)
        return np.asarray((cut @ stored).transpose(1, 0, 2).reshape(-1, heads * narrow))

    replace_initializer(
        graph, projection.weight, lazy(source, narrowed, (K, heads * narrow), ir.DataType.FLOAT)
    )
    if projection.bias is not None:
        bias = projection.bias.value

        def narrowed_bias(array: Array) -> Array:
            return np.asarray(narrowed(array[None])[0])

        replace_initializer(
            graph, bias, lazy(_source(bias), narrowed_bias, (heads * narrow,), ir.DataType.FLOAT)
        )
    _reshape(graph, projection.cut, [*projection.shape[:2], heads, narrow])
    for value in projection.chain:
        value.shape = None  # as wide as r now


def _without_bias(graph: ir.Graph, projection: Projection) -> Projection:
    """``projection`` once the Add of its bias is gone."""
    bias = projection.bias
    if bias is None:
        return projection
    bias.add.outputs[0].replace_all_uses_with(projection.product.outputs[0])
    graph.remove(bias.add, safe=True)
    del graph.initializers[name_of(bias.value)]
    return replace(projection, bias=None)


def _reread(graph: ir.Graph, reader: Reader, back: Floats, shift: Floats) -> None:
    """Let ``reader`` multiply narrow heads: rows ``back`` · wo, and ``shift`` · wo more in its bias."""
    source = _source(reader.weight)
    rows, N = shape_of(source)
    narrow, width = back.shape

    def reread(weight: Array) -> Array:
        whole = finite_floats(weight, reader.name, _PASS)
        return np.concatenate([back @ whole[:width], whole[width:]])

    replace_initializer(
        graph, reader.weight, lazy(source, reread, (rows - width + narrow, N), ir.DataType.FLOAT)
    )
    if reader.bias is not None:

        def shifted(bias: Array) -> Array:
            return np.asarray(bias.astype(np.float32) + shift @ read_floats(source)[:width])

        stored = lazy(_source(reader.bias.value), shifted, (N,), ir.DataType.FLOAT)
        replace_initializer(graph, reader.bias.value, stored)
    elif np.any(shift):
        stored = lazy(
            source,
            lambda weight: shift @ finite_floats(weight, reader.name, _PASS)[:width],
            (N,),
            ir.DataType.FLOAT,
        )
        _add_bias(graph, reader.product, initializer(graph, f"{reader.name}.bias", stored))


def _add_bias(graph: ir.Graph, product: ir.Node, bias: ir.Value) -> None:
    """Add ``bias`` to the output of ``product``, under the name that it had."""
    output = product.outputs[0]
    add = ir.node("Add", [output, bias])
    add.outputs[0].type, add.outputs[0].shape = output.type, output.shape
    output.replace_all_uses_with(add.outputs[0], replace_graph_outputs=True)
    add.replace_input_with(0, output)
    name = name_of(output)
    add.name = add.outputs[0].name = name
    product.name = output.name = f"{name}.product"
    graph.insert_after(product, [add])


def _reshape(graph: ir.Graph, node: ir.Node, sides: Sequence[int]) -> None:
    """Give the Reshape ``node`` a constant shape of its own."""
    before = node.inputs[1]
    name = f"{name_of(node.outputs[0])}.sides"
    node.replace_input_with(1, initializer(graph, name, ir.tensor(np.array(sides, np.int64), name=name)))
    if before is not None and not list(before.uses()):
        del graph.initializers[name_of(before)]


def _source(value: ir.Value) -> ir.TensorProtocol:
    tensor = constant(value)
    if tensor is None:
        raise AssertionError("the weights around attention are constants")
    return tensor
