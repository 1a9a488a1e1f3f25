"""Weight bytes: what a graph's weights take as they are stored, and what the same would take in fp16.

A quantized linear is found by its form, an INT4 constant behind DequantizeLinear, or an INT8 one that a
MatMul multiplies by; its low-rank branch by the mark that split-low-rank leaves on the branch's nodes, which
stays with the nodes in the file; scales and rotations of what linears read by theirs. Those that were folded
into other weights take nothing, or the vectors that a node got of its own for it. A linear that allocate
left in floats counts with the quantized ones: its bytes are of the same budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from latentc.passes.allotment import ALLOTTED
from latentc.passes.weights import BRANCH_OF, OWN_CONSTANTS, REWRITES_INPUT, constant, name_of, shape_of

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class WeightBytes:
    """Sizes of one component's weights, as the manifest states them.

    Args:
        weight_bytes: all stored constants.
        quantized_bytes: codes of linears, their scales, low-rank branches, and what stands before linears.
        quantized_fp16_bytes: what the same linears take in fp16.
        fp16_bytes: what all weights take in fp16.
    """

    weight_bytes: int
    quantized_bytes: int
    quantized_fp16_bytes: int
    fp16_bytes: int


def weigh(model: ir.Model) -> WeightBytes:
    """Count the bytes of ``model``'s constants; reads no weight."""
    stored: dict[str, int] = {}
    fp16_bytes = 0
    for value in model.graph.initializers.values():
        if (tensor := constant(value)) is not None and (value.uses() or value.is_graph_output()):
            stored[name_of(value)] = tensor.nbytes
    quantized, extra, quantized_fp16_bytes = _found(model)
    for value in model.graph.initializers.values():
        tensor = constant(value)
        if tensor is None or name_of(value) not in stored or name_of(value) in extra:
            continue
        is_weight = tensor.dtype in _FLOATS or tensor.dtype in (ir.DataType.INT4, ir.DataType.INT8)
        fp16_bytes += 2 * math.prod(shape_of(tensor)) if is_weight else tensor.nbytes
    return WeightBytes(
        sum(stored.values()), sum(stored[name] for name in quantized), quantized_fp16_bytes, fp16_bytes
    )


def quantized_names(model: ir.Model) -> frozenset[str]:
    """Names of the constants that count as quantized_bytes."""
    return frozenset(_found(model)[0])


def _found(model: ir.Model) -> tuple[set[str], set[str], int]:
    """What is quantized, what fp16 would not have (scales, branches), what the quantized takes in fp16."""
    quantized: set[str] = set()
    extra: set[str] = set()
    quantized_fp16_bytes = 0
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and not node.domain:
            codes = constant(node.inputs[0])
            extra |= {name for index in (1, 2) for name in _constants_behind(node, index)}
            if codes is not None and (codes.dtype is ir.DataType.INT4 or is_int8_linear(node)):
                quantized |= {name for index in (0, 1, 2) for name in _constants_behind(node, index)}
                quantized_fp16_bytes += 2 * math.prod(shape_of(codes))
        elif node.op_type == "QuantizeLinear" and not node.domain:
            extra |= {name for index in (1, 2) for name in _constants_behind(node, index)}
        elif ALLOTTED in node.metadata_props and (weight := constant(node.inputs[1])) is not None:
            (name,) = _constants_behind(node, 1)
            if name not in quantized:
                quantized_fp16_bytes += 2 * math.prod(shape_of(weight))
            quantized.add(name)
        elif BRANCH_OF in node.metadata_props or REWRITES_INPUT in node.metadata_props:
            branch = _constants_behind(node, 1)
            extra |= branch
            quantized |= branch
        elif OWN_CONSTANTS in node.metadata_props:
            for index in node.metadata_props[OWN_CONSTANTS].split(","):
                own = _constants_behind(node, int(index))
                extra |= own
                quantized |= own
    return quantized, extra, quantized_fp16_bytes


def is_int8_linear(dequantize: ir.Node) -> bool:
    """Whether ``dequantize`` gives the weight of a linear that is no branch."""
    codes = constant(dequantize.inputs[0])
    return (
        codes is not None
        and codes.dtype is ir.DataType.INT8
        and any(
            use.idx == 1 and use.node.op_type == "MatMul" and BRANCH_OF not in use.node.metadata_props
            for use in dequantize.outputs[0].uses()
        )
    )


def _constants_behind(node: ir.Node, index: int) -> set[str]:
    """Names of the constants that input ``index`` of ``node`` is made of."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return set()
    if constant(value) is not None:
        return {name_of(value)}
    producer = value.producer()
    if producer is None or producer.op_type not in ("Cast", "DequantizeLinear", "Transpose"):
        return set()
    return {name for i in range(len(producer.inputs)) for name in _constants_behind(producer, i)}
