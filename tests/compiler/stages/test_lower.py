from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.compiler.small_component import TOKENS, K, N, save_component, small_component, small_inputs

from latentc.compiler.stages.component_entry import read_lowered
from latentc.compiler.stages.engine_shapes import AxisSizes
from latentc.compiler.stages.lower import Lower
from latentc.errors import TargetError
from latentc.passes.model_file import read_model
from latentc.recipes.target import target_named

SIZES: tuple[AxisSizes, ...] = tuple((("B", batch), ("T", TOKENS), ("h", 8), ("w", 8)) for batch in (2, 1))


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_component(small_component(), tmp_path_factory.mktemp("transform"))


def lower(target: str, component: Path, out: Path) -> dict[str, bytes]:
    """What lowering wrote, by file name."""
    told: list[float] = []
    out.mkdir()
    sizes = SIZES if target_named(target).compute_capabilities else ()
    Lower(target, "unet", sizes).run({"transform": component}, out, lambda done, words: told.append(done))
    assert told == sorted(told)
    assert told[-1] == 1.0
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_onnx_is_copied(component: Path, tmp_path: Path) -> None:
    files = lower("onnx", component, tmp_path / "out")
    assert sorted(files) == ["component.json", "model.onnx", "model.onnx.data"]
    assert files["model.onnx"] == (component / "model.onnx").read_bytes()
    entry = read_lowered(tmp_path / "out").entry
    assert (entry.file, entry.onnx) == ("unet/model.onnx", "")


def test_mobile(component: Path, tmp_path: Path) -> None:
    files = lower("ort-mobile", component, tmp_path / "out")
    assert sorted(files) == ["component.json", "model.ort"]
    lowered = read_lowered(tmp_path / "out")
    assert (lowered.entry.file, lowered.entry.onnx) == ("unet/model.ort", "")
    assert lowered.simulated == ()
    onnx_bytes = 4 * 2 * N + K * N // 2
    assert lowered.entry.quantized_bytes >= onnx_bytes
    assert lowered.entry.weight_bytes < len(files["model.ort"])
    assert lowered.entry.quantized_fp16_bytes == 2 * K * N


def test_x86_multiplies_integers(component: Path, tmp_path: Path) -> None:
    files = lower("ort-x86", component, tmp_path / "out")
    assert sorted(files) == ["component.json", "model.onnx", "model.onnx.data"]
    operators = [node.op_type for node in read_model(tmp_path / "out").graph]
    assert "MatMulIntegerToFloat" in operators
    entry = read_lowered(tmp_path / "out").entry
    assert (entry.file, entry.onnx) == ("unet/model.onnx", "")
    # 8 bits a weight and one step an output
    assert entry.quantized_bytes == K * N + 4 * N
    assert entry.quantized_fp16_bytes == 2 * K * N


def test_mobile_beyond_what_ort_files_hold(
    component: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentc.compiler.stages.ort_format.LARGEST_WEIGHT_BYTES", 1000)
    files = lower("ort-mobile", component, tmp_path / "out")
    assert sorted(files) == ["component.json", "model.onnx", "model.onnx.data"]
    assert read_lowered(tmp_path / "out").entry.file == "unet/model.onnx"


def test_rtx(component: Path, tmp_path: Path) -> None:
    files = lower("rtx", component, tmp_path / "one")
    assert sorted(files) == ["component.json", "model.engine", "model.onnx", "model.onnx.data"]
    entry = read_lowered(tmp_path / "one").entry
    assert (entry.file, entry.onnx) == ("unet/model.engine", "unet/model.onnx")
    assert lower("rtx", component, tmp_path / "two") == files


def test_jetson_is_proven_and_builds_its_engine_itself(component: Path, tmp_path: Path) -> None:
    files = lower("jetson-orin-nano-8gb", component, tmp_path / "out")
    assert sorted(files) == ["component.json", "model.onnx", "model.onnx.data"]
    lowered = read_lowered(tmp_path / "out")
    assert lowered.entry.file == "unet/model.engine"
    assert lowered.proof.startswith("parsed and built by TensorRT for RTX 1.")
    model = read_model(tmp_path / "out")
    weights = {
        value.const_value.dtype.name for value in model.graph.initializers.values() if value.const_value
    }
    assert "INT4" in weights
    assert model.graph.opset_imports[""] <= 21


def test_float16_graph_gives_the_result_of_the_float32_one(component: Path, tmp_path: Path) -> None:
    lower("jetson-orin-nano-8gb", component, tmp_path / "out")
    inputs = small_inputs()
    exact = run(component / "model.onnx", inputs)
    cast = run(tmp_path / "out" / "model.onnx", inputs)
    # a few float16 roundings of 2**-11 each; an INT8 step of 0.08 may fall the other way in single pixels
    assert np.linalg.norm(cast - exact) / np.linalg.norm(exact) < 0.01


def run(model: Path, inputs: Mapping[str, np.typing.NDArray[np.float32]]) -> np.typing.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(inputs))[0], np.float32)


@pytest.mark.parametrize("target", ["rtx", "jetson-orin-nano-8gb"])
def test_refused_before_anything_is_built(target: str, tmp_path: Path) -> None:
    component = save_component(small_component(block=32), tmp_path / "transform")
    with pytest.raises(
        TargetError, match=f"{target}: unet: .*INT4 in blocks of 32, TensorRT takes 64 or 128"
    ):
        lower(target, component, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_all_jetsons_share_one_result() -> None:
    nano = Lower("jetson-orin-nano-8gb", "unet", SIZES).options()
    assert nano == Lower("jetson-agx-orin-64gb", "unet", SIZES).options()
    assert nano != Lower("rtx", "unet", SIZES).options()


def test_options_name_what_decides_the_bytes() -> None:
    assert set(Lower("ort-mobile", "unet").options()["toolchain"]) >= {"onnxruntime", "flatbuffers"}  # type: ignore[arg-type] # a mapping
    assert Lower("rtx", "unet", SIZES).options() != Lower("rtx", "unet", SIZES[:1]).options()
