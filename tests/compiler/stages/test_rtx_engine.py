from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.compiler.small_component import K, save_component, small_component

from latentc.compiler.stages import rtx_engine
from latentc.compiler.stages.rtx_engine import build_rtx_engine
from latentc.errors import TargetError, ToolMissing

PROFILES = tuple({"latent": (batch, 4, 8, 8), "text_states": (batch, 12, K)} for batch in (2, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_component(small_component(float_type=np.float16), tmp_path_factory.mktemp("component"))


def build(folder: Path, engine: Path, timeout_s: float = 120.0) -> None:
    build_rtx_engine("unet", folder / "model.onnx", engine, ("8.6", "12.0"), PROFILES, timeout_s)


def test_same_bytes_every_time(folder: Path, tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "another, longer place", tmp_path / "c"]
    for place in places:
        place.mkdir()
        build(folder, place / "model.engine")
    engines = [(place / "model.engine").read_bytes() for place in places]
    assert len(engines[0]) > 100_000
    assert engines == engines[:1] * 3
    assert [[path.name for path in place.iterdir()] for place in places] == [["model.engine"]] * 3


def test_refused_graph_names_the_node(tmp_path: Path) -> None:
    # strongly typed: a float32 and a float16 side cannot be added
    proto = small_component(float_type=np.float16)
    proto.graph.node.insert(
        len(proto.graph.node) - 1,
        helper.make_node("Cast", ["head.pixels"], ["head.wide"], name="widen", to=onnx.TensorProto.FLOAT),
    )
    proto.graph.node[-1].input[1] = "head.wide"
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(TargetError) as caught:
        build(tmp_path, tmp_path / "model.engine")
    message = str(caught.value)
    assert message.startswith("unet: TensorRT for RTX refuses the graph (exit code 1): [E] ")
    assert "prediction" in message.splitlines()[0]
    assert "CUDA" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


def test_a_hang_ends(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=re.escape("unet: TensorRT for RTX was not done after 0.01 s")):
        build(folder, tmp_path / "model.engine", timeout_s=0.01)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_is_one_clear_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "crash.py"
    crash.write_text(
        "import os, signal\nprint('[V] Building layer 7', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setattr(rtx_engine, "_CHILD", (sys.executable, str(crash)))
    with pytest.raises(TargetError) as caught:
        build(folder, tmp_path / "model.engine")
    assert str(caught.value).splitlines()[0] == (
        "unet: TensorRT for RTX crashed with SIGSEGV; its last words: [V] Building layer 7"
    )


def test_missing_package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx_engine, "find_spec", lambda name: None)
    with pytest.raises(ToolMissing, match=re.escape("pip install 'latentc[rtx]'")):
        build(folder, tmp_path / "model.engine")
