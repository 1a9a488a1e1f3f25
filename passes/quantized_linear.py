"""Quantized linear: codes and steps behind a DequantizeLinear take the place of a linear's weight.

    w = DequantizeLinear(w.codes, Cast(w.steps))

The Cast is folded when a session starts; the cast pass removes it for float16 targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from latentc.passes.weights import Array, JointTensors, Linear, initializer


def replace_by_codes(
    graph: ir.Graph,
    linear: Linear,
    compute: Callable[[], Mapping[str, Array]],
    dtype: ir.DataType,
    group: int = 0,
) -> None:
    """Let ``linear`` multiply by what is dequantized from codes.

    Args:
        graph: holds ``linear``.
        linear: with a float32 weight [K, N].
        compute: called when the weight is written; gives ``codes`` [K, N] and ``steps``.
        dtype: of the codes, INT4 or INT8.
        group: inputs that share a step, steps [K / group, N]; 0: one step an output, steps [N].
    """
    K, N = linear.shape
    step_shape = (K // group, N) if group else (N,)
    joint = JointTensors(compute, {"codes": (dtype, (K, N)), "steps": (ir.DataType.FLOAT16, step_shape)})
    del graph.initializers[linear.name]
    codes = initializer(graph, f"{linear.name}.codes", joint.tensor("codes"))
    steps = initializer(graph, f"{linear.name}.steps", joint.tensor("steps"))
    cast = ir.node("Cast", [steps], attributes={"to": ir.DataType.FLOAT.value})
    blocks = {"axis": 0, "block_size": group} if group else {"axis": 1}
    dequantize = ir.node("DequantizeLinear", [codes, cast.outputs[0]], attributes=blocks)
    for node, name in ((cast, f"{linear.name}.steps.float32"), (dequantize, linear.name)):
        node.name = node.outputs[0].name = name
        node.outputs[0].dtype = ir.DataType.FLOAT
    cast.outputs[0].shape = ir.Shape(step_shape)
    dequantize.outputs[0].shape = ir.Shape((K, N))
    graph.insert_before(linear.nodes[0], [cast, dequantize])
    linear.weight.replace_all_uses_with(dequantize.outputs[0])
