from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.compiler.small_component import small_component

from latentc.compiler.stages.onnxruntime_limits import (
    check_for_onnxruntime,
    check_fused,
    float_convolutions,
    quantized_linear_names,
)
from latentc.compiler.stages.ort_format import OrtNode
from latentc.errors import InternalError, TargetError

CODES = "proj.weight.codes_T"
LINEAR = OrtNode("com.microsoft::MatMulNBits", ("text_states", CODES), {"bits": 4, "accuracy_level": 4})
CONVOLUTION = OrtNode("QLinearConv", ("a", "b", "c", "conv.weight.codes"), {})


def model_of(proto: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(proto)


def test_what_it_takes() -> None:
    check_for_onnxruntime(model_of(small_component()), "ort-mobile", "unet")
    check_for_onnxruntime(model_of(small_component(block=32, unsigned=True)), "ort-mobile", "unet")


def test_transposed_weight_is_refused_by_node() -> None:
    with pytest.raises(TargetError) as caught:
        check_for_onnxruntime(model_of(small_component(transposed=True, axis=1)), "ort-mobile", "unet")
    assert str(caught.value) == (
        "ort-mobile: unet: proj.weight: the INT4 weight 'proj.weight.codes' has blocks of 64 along axis 1; "
        "onnxruntime does not fuse that\n"
        "fix: leave this weight to INT8 or float, or make it a MatMul with a [K, N] weight "
        "(pass canonicalize)"
    )


def test_convolution_in_four_bits_is_refused() -> None:
    proto = small_component()
    for node in proto.graph.node:
        if node.name == "proj.product":
            node.op_type = "Conv"
    with pytest.raises(TargetError, match=r"goes into input 1 of Conv 'proj\.product'"):
        check_for_onnxruntime(model_of(proto), "ort-mobile", "unet")


def test_fused_linear_is_found_by_its_weight() -> None:
    model = model_of(small_component())
    check_fused(model, [LINEAR], "unet")
    assert quantized_linear_names(model) == ("proj.weight",)


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [OrtNode("com.microsoft::MatMulNBits", ("x", "other_T"), {"bits": 4, "accuracy_level": 4})],
        [OrtNode("com.microsoft::MatMulNBits", ("x", CODES), {"bits": 8, "accuracy_level": 4})],
        [OrtNode("com.microsoft::MatMulNBits", ("x", CODES), {"bits": 4, "accuracy_level": 0})],
    ],
)
def test_linear_that_was_not_fused(nodes: list[OrtNode]) -> None:
    with pytest.raises(InternalError) as caught:
        check_fused(model_of(small_component()), nodes, "unet")
    assert str(caught.value) == (
        "unet: proj.weight.codes: onnxruntime did not fuse it into a 4-bit MatMulNBits (1 of 1 such)\n"
        "fix: report this with the recipe"
    )


def test_an_int8_linear_must_become_one_of_eight_bits() -> None:
    proto = small_component()
    for tensor in proto.graph.initializer:
        if f"{tensor.name}_T" == CODES:
            codes = onnx.numpy_helper.to_array(tensor).astype(np.int8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(codes, tensor.name))
    model = model_of(proto)
    eight = OrtNode("com.microsoft::MatMulNBits", ("x", CODES), {"bits": 8, "accuracy_level": 4})
    check_fused(model, [eight], "unet")
    assert quantized_linear_names(model) == ("proj.weight",)
    with pytest.raises(InternalError, match=r"did not fuse it into a 8-bit MatMulNBits \(1 of 1 such\)"):
        check_fused(model, [LINEAR], "unet")


def test_convolution_that_runs_in_float_is_named() -> None:
    model = model_of(small_component())
    assert float_convolutions(model, [CONVOLUTION]) == ()
    assert float_convolutions(model, [OrtNode("Conv", ("a", "b"), {})]) == ("conv",)


def test_float_convolution_is_not_called_simulated() -> None:
    proto = small_component()
    conv = next(node for node in proto.graph.node if node.name == "conv")
    conv.input[0] = "latent"
    assert float_convolutions(model_of(proto), []) == ()
