from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.compiler.small_component import save_component, small_component, small_inputs

from latentc.compiler.stages.ort_format import content_of_ort, ort_from_onnx, write_operators_config
from latentc.errors import InternalError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_component(small_component(), tmp_path_factory.mktemp("component"))
    ort_from_onnx(folder / "model.onnx", folder / "model.ort")
    return folder


def run(model: Path, level: onnxruntime.GraphOptimizationLevel) -> np.typing.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    result: np.typing.NDArray[np.float32] = session.run(None, small_inputs())[0]
    return result


def test_linears_and_convolutions_are_fused(folder: Path) -> None:
    nodes = content_of_ort(folder / "model.ort").nodes
    (linear,) = [node for node in nodes if node.operator == "com.microsoft::MatMulNBits"]
    assert linear.integers == {"K": 128, "N": 64, "accuracy_level": 4, "bits": 4, "block_size": 64}
    assert [node.operator for node in nodes].count("QLinearConv") == 1
    assert "Conv" not in [node.operator for node in nodes]


def test_nothing_of_this_machines_cpu_is_in_it(folder: Path) -> None:
    operators = {node.operator for node in content_of_ort(folder / "model.ort").nodes}
    assert not {name for name in operators if "nchwc" in name}
    # NHWC convolutions are com.microsoft's own, and older runtimes lack some of them
    assert {name for name in operators if "::" in name} == {"com.microsoft::MatMulNBits"}


def test_int4_weights_take_half_a_byte(folder: Path) -> None:
    stored = content_of_ort(folder / "model.ort").initializer_bytes
    assert stored["proj.weight.codes_T"] == 128 * 64 // 2
    assert stored["conv.weight.codes"] == 16 * 4 * 3 * 3


def test_result_is_that_of_the_graph(folder: Path) -> None:
    exact = run(folder / "model.onnx", onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    fused = run(folder / "model.ort", onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    # activations of the 4-bit linear are rounded to INT8 per block: by at most half of 1/127 of their largest
    # value, which the mean over tokens makes smaller; the convolution's output step of 0.08 can move by one
    assert np.abs(fused - exact).max() < 0.1
    assert np.linalg.norm(fused - exact) / np.linalg.norm(exact) < 0.01


def test_same_bytes_from_another_process_and_place(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "a" / "much longer" / "place"
    shutil.copytree(folder, place)
    code = (
        "import sys; from pathlib import Path\n"
        "from latentc.compiler.stages.ort_format import ort_from_onnx\n"
        "ort_from_onnx(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    other = tmp_path / "other.ort"
    subprocess.run([sys.executable, "-c", code, str(place / "model.onnx"), str(other)], check=True)
    assert other.read_bytes() == (folder / "model.ort").read_bytes()


def test_a_graph_that_onnxruntime_refuses(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(InternalError, match=r"model\.onnx: onnxruntime cannot convert it to \.ort: "):
        ort_from_onnx(tmp_path / "model.onnx", tmp_path / "model.ort")


def test_operators_config(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "required_operators_and_types.config"
    write_operators_config([folder / "model.ort"], ["unet/model.ort"], config)
    assert config.read_text() == (
        "# Operators and types of:\n"
        "# - unet/model.ort\n"
        'ai.onnx;10;QLinearConv{"inputs": {"0": ["int8_t"]}}\n'
        'ai.onnx;13;MatMul{"inputs": {"0": ["float"]}}\n'
        'ai.onnx;14;Add{"inputs": {"0": ["float"]}}\n'
        'ai.onnx;18;ReduceMean{"inputs": {"0": ["float"]}}\n'
        'ai.onnx;21;DequantizeLinear{"inputs": {"0": ["int8_t"]}},'
        'QuantizeLinear{"outputs": {"0": ["int8_t"]}},Unsqueeze\n'
        "com.microsoft;1;MatMulNBits\n"
    )
