"""Quantized input: the Q/DQ pair that rounds a value to INT8 with a step that is known beforehand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from latentc.passes.weights import initializer, name_of


def quantized_input(graph: ir.Graph, source: ir.Value, step: float) -> ir.Value:
    """The value of ``source`` after rounding to symmetric INT8; the nodes are made once and shared.

    Args:
        graph: holds what makes ``source``.
        source: a float32 value.
        step: of its codes; a pair that is there already keeps its own.
    """
    name = name_of(source)
    for use in source.uses():
        if use.node.op_type == "QuantizeLinear":
            (reader,) = use.node.successors()
            return reader.outputs[0]
    scale = initializer(graph, f"{name}.step", ir.tensor(np.float32(step)))
    quantize = ir.node("QuantizeLinear", [source, scale], attributes={"output_dtype": ir.DataType.INT8.value})
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale])
    for node, ending, dtype in (
        (quantize, "int8", ir.DataType.INT8),
        (dequantize, "quantized", ir.DataType.FLOAT),
    ):
        node.name = node.outputs[0].name = f"{name}.{ending}"
        node.outputs[0].dtype, node.outputs[0].shape = dtype, source.shape
    producer = source.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    return dequantize.outputs[0]
