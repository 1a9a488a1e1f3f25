"""What TensorRT takes, checked node by node before any time is spent on a build.

Measured with TensorRT for RTX 1.7.1 and read from TensorRT 10.3's documents; the builder has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from latentc.errors import TargetError

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST_OPSET = 21
"""TensorRT 10.3, which JetPack 6.2 has and keeps, knows no later one."""

BLOCK_SIZES = (64, 128)
"""Of INT4 weights: what all of TensorRT 10.3, 10.16, 11.4 and TensorRT for RTX document."""

_WITHOUT_IMPORTER = (
    "ConvInteger",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "SequenceConstruct",
    "StringNormalizer",
)
_FOUR_BITS_OR_LESS = ("UINT4", "FLOAT4E2M1", "INT2", "UINT2")
_ONNX_DOMAINS = ("", "ai.onnx")


def check_for_tensorrt(model: ir.Model, target: str, component: str) -> None:
    """Find what TensorRT refuses.

    Raises:
        TargetError: names the target, the component, the node and the reason.
    """
    opset = model.graph.opset_imports.get("", 0)
    if opset > LARGEST_OPSET:
        raise TargetError(
            f"{target}: {component}",
            f"the graph has opset {opset}, TensorRT 10.3 reads up to {LARGEST_OPSET}",
            f"export with opset {LARGEST_OPSET}",
        )
    for node in model.graph.all_nodes():
        for reason, fix in _complaints(node):
            raise TargetError(f"{target}: {component}: {node.name or node.op_type}", reason, fix)


def _complaints(node: ir.Node) -> Iterator[tuple[str, str]]:
    if node.domain not in _ONNX_DOMAINS:
        yield (
            f"operator {node.domain}::{node.op_type} is not of ONNX's own, TensorRT has no importer for it",
            "use the Q/DQ form: quantize with this recipe's passes instead of another tool's operators",
        )
    elif node.op_type in _WITHOUT_IMPORTER:
        yield f"TensorRT has no importer for {node.op_type}", "use the Q/DQ form"
    elif node.op_type in ("DequantizeLinear", "QuantizeLinear"):
        yield from _quantizer_complaints(node)


def _quantizer_complaints(node: ir.Node) -> Iterator[tuple[str, str]]:
    import onnx_ir as ir

    tensor = _constant(node.inputs[0])
    zero_point = _constant(node.inputs[2]) if len(node.inputs) > 2 else None
    stored = (tensor if node.op_type == "DequantizeLinear" else None) or zero_point
    dtype = stored.dtype if stored is not None else None
    if node.op_type == "QuantizeLinear" and zero_point is None:
        # ONNX means uint8 when nothing says otherwise, TensorRT means int8
        dtype = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8.value)
    if dtype is not None and dtype.name in _FOUR_BITS_OR_LESS:
        yield f"{dtype.name} is read by no TensorRT, which has INT4 only", "quantize with quantize-int4"
    elif dtype is not None and dtype not in (ir.DataType.INT4, ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN):
        yield f"{dtype.name} cannot be dequantized by TensorRT, which is signed only", "quantize to INT8"
    if zero_point is not None and bool(zero_point.numpy().astype("float32").any()):
        yield "the zero point is not zero, TensorRT is symmetric only", "quantize symmetrically"
    if tensor is None or tensor.dtype is not ir.DataType.INT4:
        return
    block = node.attributes.get_int("block_size", 0)
    rank = len(tensor.shape)
    if block == 0:
        return
    if block not in BLOCK_SIZES:
        sizes = " or ".join(map(str, BLOCK_SIZES))
        yield (
            f"INT4 in blocks of {block}, TensorRT takes {sizes}",
            f"group: {BLOCK_SIZES[0]}",
        )
    if node.attributes.get_int("axis", 1) % rank < rank - 2:
        yield (
            f"INT4 blocks run along axis {node.attributes.get_int('axis', 1)} of {rank}, TensorRT takes the "
            "last two only",
            "quantize this weight as a matrix [K, N]",
        )


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    return None if value is None or not value.is_initializer() else value.const_value
