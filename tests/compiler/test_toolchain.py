import os
import re
from pathlib import Path

import onnx
import pytest

from latentc.compiler.toolchain import accelerator, threads, versions
from latentc.errors import ToolMissing


def test_versions() -> None:
    assert versions("onnx") == {"onnx": onnx.__version__}


def test_threads_are_the_cores_that_this_process_may_use() -> None:
    cores = os.sched_getaffinity(0)
    assert threads() == len(cores)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert threads() == 1
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize(("package", "extra"), [("tensorrt", "tensorrt"), ("no-such-package", "compile")])
def test_missing_package_names_its_extra(package: str, extra: str) -> None:
    with pytest.raises(ToolMissing, match=re.escape(f"pip install 'latentc[{extra}]'")):
        versions("onnx", package)


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What NVIDIA's driver says of one GPU, and a torch that has CUDA."""
    (tmp_path / "0000:17:00.0").mkdir()
    (tmp_path / "0000:17:00.0" / "information").write_text(
        "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 96\n", encoding="utf-8"
    )
    monkeypatch.setattr("latentc.compiler.toolchain.version", lambda _: "2.13.0+cu130")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def test_a_gpu_is_called_by_its_name(described: Path) -> None:
    assert accelerator(described) == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_hidden_gpu_is_none(described: Path, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert accelerator(described) == ""


def test_a_gpu_that_torch_was_not_built_for_is_none(described: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentc.compiler.toolchain.version", lambda _: "2.13.0+cpu")
    assert accelerator(described) == ""


def test_a_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    assert accelerator(tmp_path / "none") == ""
