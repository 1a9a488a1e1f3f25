"""onnxruntime sessions: types at the border, what INT4 linears multiply with, clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from latentc.errors import BundleError, TargetError
from latentc.runtime.onnxruntime_session import OnnxruntimeSession, widened
from latentc.runtime.session import Array

K, N, BLOCK = 128, 64, 64


def _model(float_type: int, integer_type: int) -> bytes:
    """y = float(n) * x, with the types of a TensorRT-form graph."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["n"], ["f"], to=float_type), helper.make_node("Mul", ["f", "x"], ["y"])],
        "border",
        [
            helper.make_tensor_value_info("x", float_type, ("B", 3)),
            helper.make_tensor_value_info("n", integer_type, ("B", 1)),
        ],
        [helper.make_tensor_value_info("y", float_type, ("B", 3))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def _int4_linear() -> tuple[bytes, np.typing.NDArray[np.float32]]:
    """An INT4 linear as ort-mobile bundles hold it, and its weights [K, N] in float32."""
    random = np.random.default_rng(0)
    weights = random.integers(-8, 8, (K, N))
    scales = (0.1 * random.random((K // BLOCK, N))).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "s"], ["wide"], axis=0, block_size=BLOCK),
            helper.make_node("MatMul", ["x", "wide"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("B", K))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("B", N))],
        [
            helper.make_tensor("w", TensorProto.INT4, (K, N), weights.reshape(-1).tolist()),
            numpy_helper.from_array(scales, "s"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString(), (weights * np.repeat(scales, BLOCK, axis=0)).astype(np.float32)


@pytest.mark.parametrize("float_type", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("integer_type", [TensorProto.INT64, TensorProto.INT32])
def test_callers_pass_and_get_float32(float_type: int, integer_type: int) -> None:
    with OnnxruntimeSession("border", _model(float_type, integer_type)) as session:
        assert session.input_names == ("x", "n")
        assert session.output_names == ("y",)
        x = np.array([[1.5, -2.0, 0.25]], np.float32)
        results = session.run({"x": x, "n": np.array([[3]], np.int64)})
    assert results["y"].dtype == np.float32
    np.testing.assert_array_equal(results["y"], 3 * x)


def test_a_strided_input_is_fine() -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2).T
    with OnnxruntimeSession("border", _model(TensorProto.FLOAT, TensorProto.INT64)) as session:
        results = session.run({"x": x, "n": np.ones((2, 1), np.int64)})
    np.testing.assert_array_equal(results["y"], x)


def test_int4_linears_round_activations_only_where_promised() -> None:
    """Float32 activations agree with numpy; INT8 ones are off by what rounding costs, and no more."""
    model, weights = _int4_linear()
    x = np.random.default_rng(1).standard_normal((4, K)).astype(np.float32)
    expected = x.astype(np.float64) @ weights
    errors = {}
    for int8 in (False, True):
        with OnnxruntimeSession("linear", model, int8_activations=int8) as session:
            result = session.run({"x": x})["y"]
        errors[int8] = np.linalg.norm(result - expected) / np.linalg.norm(expected)
    assert errors[False] < 1e-6  # float32 sums of 128 products
    # INT8 steps are 1/127 of a block's largest value (about 2.6 deviations): 0.6 % of a deviation, uniform.
    assert 1e-3 < errors[True] < 1.2e-2


def test_names_are_checked() -> None:
    with OnnxruntimeSession("unet", _model(TensorProto.FLOAT, TensorProto.INT64)) as session:
        with pytest.raises(BundleError) as caught:
            session.run({"x": np.zeros((1, 3), np.float32)})
        assert str(caught.value).startswith("unet: takes the inputs n, x, was given x\nfix: ")


def test_a_shape_that_does_not_fit_names_all_shapes() -> None:
    with (
        OnnxruntimeSession("unet", _model(TensorProto.FLOAT, TensorProto.INT64)) as session,
        pytest.raises(TargetError, match=r"unet: onnxruntime cannot run it with x \[2, 5\], n \[2, 1\]: "),
    ):
        session.run({"x": np.zeros((2, 5), np.float32), "n": np.zeros((2, 1), np.int64)})


def test_a_closed_session_says_so() -> None:
    session = OnnxruntimeSession("unet", _model(TensorProto.FLOAT, TensorProto.INT64))
    session.close()
    session.close()
    with pytest.raises(TargetError, match="unet: the session is closed"):
        session.run({})


def test_a_graph_that_is_none() -> None:
    with pytest.raises(BundleError, match=r"unet: onnxruntime 1\.\d+\.\d+ refuses the graph: "):
        OnnxruntimeSession("unet", b"no graph")


def test_a_type_that_no_caller_has(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "strings",
        [helper.make_tensor_value_info("x", TensorProto.STRING, (1,))],
        [helper.make_tensor_value_info("y", TensorProto.STRING, (1,))],
    )
    path = tmp_path / "model.onnx"
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path
    )
    with pytest.raises(BundleError, match=r"input 'x' has type tensor\(string\), wanted one of "):
        OnnxruntimeSession("unet", str(path))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("float16", "float32"), ("float32", "float32"), ("int32", "int64"), ("int64", "int64")],
)
def test_widened(given: str, wanted: str) -> None:
    array: Array = np.ones(2, given)
    assert widened(array).dtype.name == wanted
