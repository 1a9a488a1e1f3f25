"""What onnxruntime stores in an .ort file and fuses into 4-bit kernels, checked before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from latentc.compiler.stages.ort_format import ACCURACY_LEVEL, OrtNode
from latentc.errors import InternalError, TargetError

if TYPE_CHECKING:
    import onnx_ir as ir

_BLOCK_SIZES = (16, 32, 64, 128, 256)
_FOUR_BITS = ("INT4", "UINT4")


def check_for_onnxruntime(model: ir.Model, target: str, component: str) -> None:
    """Find 4-bit weights that would not become MatMulNBits, the only form an .ort file can hold them in.

    Raises:
        TargetError: names the target, the component, the node and the reason.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype.name not in _FOUR_BITS:
            continue
        for use in value.uses():
            reason = _not_fused(use.node, use.idx)
            if reason:
                raise TargetError(
                    f"{target}: {component}: {use.node.name or use.node.op_type}",
                    f"the {tensor.dtype.name} weight '{value.name}' {reason}; onnxruntime does not fuse that",
                    "leave this weight to INT8 or float, or make it a MatMul with a [K, N] weight "
                    "(pass canonicalize)",
                )


def _not_fused(node: ir.Node, position: int) -> str:
    """Why a 4-bit constant read by ``node`` stays as it is; empty when it becomes a MatMulNBits."""
    if node.op_type != "DequantizeLinear":
        return f"goes into {node.op_type}"
    if position == 2:
        return ""  # a zero point: it is fused with the weight that it belongs to
    block, axis = node.attributes.get_int("block_size", 0), node.attributes.get_int("axis", 1)
    if block and (block not in _BLOCK_SIZES or axis != 0):
        return f"has blocks of {block} along axis {axis}"
    for use in node.outputs[0].uses():
        if use.node.op_type != "MatMul" or use.idx != 1:
            return f"goes into input {use.idx} of {use.node.op_type} '{use.node.name}'"
    return ""


def check_fused(model: ir.Model, nodes: Sequence[OrtNode], component: str) -> None:
    """Compare the converted file with ``model``, by the names of weights: onnxruntime renames nodes.

    Raises:
        InternalError: a linear's integer weight did not become a MatMulNBits with INT8 activations.
    """
    for bits in (4, 8):
        attributes = {"bits": bits, "accuracy_level": ACCURACY_LEVEL}
        fused = _read_by(nodes, "com.microsoft::MatMulNBits", 1, attributes)
        linears = _quantized_linears(model, bits)
        wanted = [str(node.inputs[0].name) for node in linears if node.inputs[0] is not None]
        missing = [codes for codes in wanted if not _stands_for(codes, fused)]
        if missing:
            raise InternalError(
                f"{component}: {missing[0]}",
                f"onnxruntime did not fuse it into a {bits}-bit MatMulNBits "
                f"({len(missing)} of {len(wanted)} such)",
                "report this with the recipe",
            )


def float_convolutions(model: ir.Model, nodes: Sequence[OrtNode]) -> tuple[str, ...]:
    """Convolutions with INT8 input and kernel that run in float32 all the same, by node name."""
    integer = _read_by(nodes, "QLinearConv", 3, {})
    return tuple(
        str(node.name)
        for node in model.graph
        if node.op_type == "Conv"
        and all(_dequantized_from(value) is not None for value in node.inputs[:2])
        and not _stands_for(str(_dequantized_from(node.inputs[1])), integer)
    )


def _read_by(
    nodes: Sequence[OrtNode], operator: str, position: int, integers: Mapping[str, int]
) -> frozenset[str]:
    """What all nodes of ``operator`` with these attributes read at ``position``."""
    return frozenset(
        node.inputs[position]
        for node in nodes
        if node.operator == operator and integers.items() <= node.integers.items()
    )


def _stands_for(name: str, found: frozenset[str]) -> bool:
    """Whether the constant ``name`` is among ``found``, itself or laid out anew (``name_T``)."""
    return name in found or f"{name}_T" in found


def _dequantized_from(value: ir.Value | None) -> str | None:
    """The name of what ``value`` is dequantized from; None when it is no dequantized value."""
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return None
    return producer.inputs[0].name


def quantized_linear_names(model: ir.Model) -> tuple[str, ...]:
    """Names of the weights of linears that are stored in 4 or 8 bits, as the original model calls them."""
    return tuple(str(node.outputs[0].name) for bits in (4, 8) for node in _quantized_linears(model, bits))


def _quantized_linears(model: ir.Model, bits: int) -> list[ir.Node]:
    """The nodes that dequantize constants of ``bits`` for linears; those of convolutions and branches not."""
    from latentc.passes.weight_bytes import is_int8_linear

    dequantizers = [node for node in model.graph if node.op_type == "DequantizeLinear"]
    if bits == 8:
        return [node for node in dequantizers if is_int8_linear(node)]
    return [
        node
        for node in dequantizers
        if node.inputs[0] is not None
        and node.inputs[0].const_value is not None
        and node.inputs[0].const_value.dtype.name in _FOUR_BITS
    ]
