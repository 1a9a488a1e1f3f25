"""The child process by itself: what it reads, and how it says no."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.runtime.small_bundle import write_small_bundle

from latentc.runtime.engine import EngineRequest, request_from_json

REQUEST = EngineRequest(
    package="tensorrt_rtx",
    onnx="model.onnx",
    engine="model.engine",
    report="report.json",
    profile={"latent": ((1, 4, 8, 8), (2, 4, 8, 8), (2, 4, 16, 16))},
    compute_capability="8.9",
)


def test_a_request_reads_back() -> None:
    assert request_from_json(json.dumps(asdict(REQUEST))) == REQUEST


def _run(folder: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    path = folder / "request.json"
    path.write_text(json.dumps({**asdict(REQUEST), **changes}))
    return subprocess.run(
        [sys.executable, "-m", "latentc.runtime.build_tensorrt", str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    child = _run(tmp_path, onnx="missing.onnx")
    assert child.returncode == 1
    assert "missing.onnx" in child.stderr.splitlines()[-1]


def test_engine_and_report_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    write_small_bundle(tmp_path / "bundle", "jetson-orin-nano-8gb")
    shapes = {"latent": [[1, 4, 4, 4], [1, 4, 4, 4], [2, 4, 8, 8]]}
    child = _run(tmp_path, onnx=str(tmp_path / "bundle/vae_decoder/model.onnx"), profile=shapes)
    assert child.returncode == 0, child.stderr
    assert (tmp_path / "model.engine").stat().st_size > 1000
    assert sorted(json.loads((tmp_path / "report.json").read_text())) == ["layers", "version"]


def test_a_missing_library_names_the_extra(tmp_path: Path) -> None:
    child = _run(tmp_path, package="tensorrt")
    if child.returncode == 0:
        pytest.skip("TensorRT is installed here")
    assert "the package 'tensorrt' is not installed" in child.stderr
