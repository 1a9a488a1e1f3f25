from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from tests.compiler.small_component import small_component

from latentc.compiler.stages.tensorrt_limits import check_for_tensorrt
from latentc.errors import TargetError

TARGET = "jetson-orin-nano-8gb"


def refusal(proto: onnx.ModelProto) -> str:
    with pytest.raises(TargetError) as caught:
        check_for_tensorrt(ir.from_proto(proto), TARGET, "unet")
    return str(caught.value)


def node_named(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (found,) = [node for node in proto.graph.node if node.name == name]
    assert isinstance(found, onnx.NodeProto)
    return found


@pytest.mark.parametrize("block", [64, 128])
def test_what_it_takes(block: int) -> None:
    check_for_tensorrt(ir.from_proto(small_component(block=block)), TARGET, "unet")


def test_unsigned_codes() -> None:
    assert refusal(small_component(unsigned=True)) == (
        "jetson-orin-nano-8gb: unet: proj.weight: UINT4 is read by no TensorRT, which has INT4 only\n"
        "fix: quantize with quantize-int4"
    )


def test_block_size() -> None:
    assert refusal(small_component(block=32)) == (
        "jetson-orin-nano-8gb: unet: proj.weight: INT4 in blocks of 32, TensorRT takes 64 or 128\n"
        "fix: group: 64"
    )


def test_zero_point() -> None:
    proto = small_component()
    for tensor in proto.graph.initializer:
        if tensor.name == "conv.weight.zeros":
            tensor.CopyFrom(numpy_helper.from_array(np.full(16, 3, np.int8), tensor.name))
    assert refusal(proto) == (
        "jetson-orin-nano-8gb: unet: conv.weight: the zero point is not zero, TensorRT is symmetric only\n"
        "fix: quantize symmetrically"
    )


def test_foreign_operator() -> None:
    proto = small_component()
    node_named(proto, "proj.product").domain = "com.microsoft"
    assert refusal(proto) == (
        "jetson-orin-nano-8gb: unet: proj.product: operator com.microsoft::MatMul is not of ONNX's own, "
        "TensorRT has no importer for it\n"
        "fix: use the Q/DQ form: quantize with this recipe's passes instead of another tool's operators"
    )


def test_operator_without_importer() -> None:
    proto = small_component()
    node_named(proto, "proj.product").op_type = "MatMulInteger"
    assert refusal(proto).startswith(
        "jetson-orin-nano-8gb: unet: proj.product: TensorRT has no importer for MatMulInteger"
    )


def test_unsigned_bytes() -> None:
    proto = small_component()
    for tensor in proto.graph.initializer:
        if tensor.name == "zero":
            tensor.CopyFrom(numpy_helper.from_array(np.array(0, np.uint8), tensor.name))
    assert "unet: latent.codes: UINT8 cannot be dequantized by TensorRT, which is signed only" in refusal(
        proto
    )


def test_quantizer_that_means_something_else_to_tensorrt() -> None:
    proto = small_component()
    del node_named(proto, "latent.codes").input[2]
    assert "unet: latent.codes: UINT8 cannot be dequantized by TensorRT" in refusal(proto)
    node_named(proto, "latent.codes").attribute.append(
        helper.make_attribute("output_dtype", onnx.TensorProto.INT8)
    )
    check_for_tensorrt(ir.from_proto(proto), TARGET, "unet")


def test_int32_bias() -> None:
    proto = small_component()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(16, np.int32), "conv.bias.codes"))
    proto.graph.node.insert(
        0,
        helper.make_node(
            "DequantizeLinear",
            ["conv.bias.codes", "conv.weight.steps"],
            ["conv.bias.float"],
            name="bias",
            axis=0,
        ),
    )
    assert "unet: bias: INT32 cannot be dequantized by TensorRT" in refusal(proto)


def test_blocks_along_a_convolutions_channels() -> None:
    proto = small_component()
    proto.graph.initializer.append(
        helper.make_tensor(
            "kernel.codes", onnx.TensorProto.INT4, [2, 64, 3, 3], np.zeros(2 * 64 * 9, np.int8)
        )
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), "kernel.steps"))
    proto.graph.node.append(
        helper.make_node(
            "DequantizeLinear",
            ["kernel.codes", "kernel.steps"],
            ["kernel"],
            name="kernel",
            axis=1,
            block_size=64,
        )
    )
    assert "unet: kernel: INT4 blocks run along axis 1 of 4, TensorRT takes the last two only" in refusal(
        proto
    )


def test_opset() -> None:
    assert refusal(small_component(opset=22)) == (
        "jetson-orin-nano-8gb: unet: the graph has opset 22, TensorRT 10.3 reads up to 21\n"
        "fix: export with opset 21"
    )
