"""Quantized linear: codes and steps behind a DequantizeLinear take the place of a linear's weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from latentc.passes.dequantized import dequantized
from latentc.passes.weights import Array, JointTensors, Linear, initializer


def replace_by_codes(
    graph: ir.Graph,
    linear: Linear,
    compute: Callable[[], Mapping[str, Array]],
    dtype: ir.DataType,
    group: int = 0,
    work_floats: float = 3,
) -> None:
    """Let ``linear`` multiply by what is dequantized from codes.

    Args:
        graph: holds ``linear``.
        linear: with a float32 weight [K, N].
        compute: called when the weight is written; gives ``codes`` [K, N] and ``steps``.
        dtype: of the codes, INT4 or INT8.
        group: inputs that share a step, steps [K / group, N]; 0: one step an output, steps [N].
        work_floats: memory that ``compute`` takes besides the weight, in float32 arrays of its shape.
    """
    K, N = linear.shape
    step_shape = (K // group, N) if group else (N,)
    source = linear.weight.const_value
    joint = JointTensors(
        compute,
        {"codes": (dtype, (K, N)), "steps": (ir.DataType.FLOAT16, step_shape)},
        () if source is None else (source,),
        round(work_floats * 4 * K * N),
    )
    codes = initializer(graph, f"{linear.name}.codes", joint.tensor("codes"))
    steps = initializer(graph, f"{linear.name}.steps", joint.tensor("steps"))
    del graph.initializers[linear.name]
    weight = dequantized(
        graph, linear.nodes[0], codes, steps, linear.name, axis=0 if group else 1, group=group
    )
    linear.weight.replace_all_uses_with(weight)
