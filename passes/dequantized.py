"""Dequantized: a constant stored as integer codes and float16 steps, as the float32 value that nodes read.

    w = DequantizeLinear(w.codes, Cast(w.steps))

The Cast is folded when a session starts; the cast pass removes it for float16 targets.
"""

from __future__ import annotations

import onnx_ir as ir

from latentc.passes.weights import constant, name_of


def dequantized(
    graph: ir.Graph,
    before: ir.Node,
    codes: ir.Value,
    steps: ir.Value,
    name: str,
    axis: int = 1,
    group: int = 0,
) -> ir.Value:
    """The value of ``codes`` times ``steps``; its nodes are put in front of ``before``.

    Args:
        graph: holds ``before``.
        before: the first node that reads the value.
        codes: INT4 or INT8.
        steps: float16, one or a vector along ``axis``; with ``group`` as ``codes``, shorter along it.
        name: of the value, and of the node that gives it.
        axis: that the steps lie along.
        group: codes along ``axis`` that share a step; 0: a step for each index.
    """
    cast = ir.node("Cast", [steps], attributes={"to": ir.DataType.FLOAT.value})
    blocks = {"block_size": group} if group else {}
    dequantize = ir.node("DequantizeLinear", [codes, cast.outputs[0]], attributes={"axis": axis} | blocks)
    for node, shape, given in (
        (cast, steps.shape, f"{name_of(steps)}.float32"),
        (dequantize, codes.shape, name),
    ):
        node.name = node.outputs[0].name = given
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, shape
    graph.insert_before(before, [cast, dequantize])
    return dequantize.outputs[0]


def codes_behind(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The codes that ``value`` is dequantized from; None when it is anything else."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.domain:
        return None
    return constant(node.inputs[0])
