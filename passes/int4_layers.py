"""Int4 layers: which linears become INT4, or INT8. One rule for quantizing, splitting and allocating."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.allotment import Precision, allotment_of
from latentc.passes.base import Refusal
from latentc.passes.weights import Linear, constant, find_convolutions, find_linears, matches, name_of

SMALLEST = 4096
"""Weights: a smaller linear saves less than the nodes around it cost."""


def require_canonical_linears(pass_name: str, model: ir.Model) -> None:
    """Raise PassError when a linear of ``model`` is not yet MatMul with a [K, N] constant."""
    for node in model.graph:
        if node.op_type == "Gemm" and constant(node.inputs[1]) is not None:
            raise PassError(
                pass_name,
                f"'{name_of(node.outputs[0])}' is a Gemm, wanted MatMul and Add",
                "run canonicalize before this pass",
            )


def quantizable_linears(graph: ir.Graph) -> Iterator[tuple[Linear, Refusal | None]]:
    """Every linear of ``graph`` in graph order, with the reason why it stays float at any width of bits."""
    for linear in find_linears(graph):
        why = _obstacle(linear)
        yield linear, None if why is None else Refusal(linear.name, why)


def int4_linears(
    graph: ir.Graph, group: int, skip: tuple[str, ...]
) -> Iterator[tuple[Linear, Refusal | None]]:
    """Every linear of ``graph`` in graph order, with the reason why it does not become INT4, if any."""
    for linear in find_linears(graph):
        why = _int4_obstacle(linear, group, skip)
        yield linear, None if why is None else Refusal(linear.name, why)


def other_weights(graph: ir.Graph) -> Iterator[Refusal]:
    """Weights that are no linears and so stay as they are: kernels and embeddings."""
    for convolution in find_convolutions(graph):
        yield Refusal(convolution.name, "is a convolution's kernel, which quantize-int8 takes")
    for node in graph:
        table = node.inputs[0] if node.op_type == "Gather" else None
        tensor = constant(table)
        if table is not None and tensor is not None and len(tensor.shape) == 2:
            yield Refusal(name_of(table), "is an embedding: rows are looked up, nothing is multiplied")


def _int4_obstacle(linear: Linear, group: int, skip: tuple[str, ...]) -> str | None:
    K, _ = linear.shape
    if matches(linear.name, skip):
        return "matches skip"
    allotment = allotment_of(linear)
    if allotment is not None and allotment.precision is not Precision.INT4:
        return f"was given {allotment} by allocate"
    if (obstacle := _obstacle(linear)) is not None:
        return obstacle
    if K % group:
        return f"its {K} inputs are no multiple of the group, {group}"
    return None


def _obstacle(linear: Linear) -> str | None:
    K, N = linear.shape
    tensor = constant(linear.weight)
    others = sorted({use.node.op_type for use in linear.weight.uses() if use.node not in linear.nodes})
    if tensor is None or tensor.dtype is not ir.DataType.FLOAT:
        seen = "nothing" if tensor is None else str(tensor.dtype.numpy())
        return f"is stored as {seen}, wanted float32"
    if others:
        return f"is also read by {', '.join(others)}"
    if K * N < SMALLEST:
        return (
            f"has {K * N} weights, fewer than {SMALLEST}: the nodes around it would cost more than it saves"
        )
    return None
