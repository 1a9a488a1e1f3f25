"""ONNX → engine through Polygraphy and TensorRT for RTX, in a child process; needs no GPU.

The builder is native code that can crash on a graph it dislikes, so a crash, a refusal and a hang all end
as one clear error here.

An engine is made for a list of exact shapes, one profile each, never for ranges: with ranges, version 1.7.1
numbers its symbolic sizes in the order of memory addresses and the same request gives other bytes every
time. With exact shapes the bytes are the same (tested), and the kernels are those of the shape.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from latentc.errors import TargetError, ToolMissing

PACKAGES = ("tensorrt-rtx-cu13", "polygraphy")
"""What decides an engine's bytes."""

_CHILD = (sys.executable, "-m", "latentc.compiler.stages.rtx_child")
_TIMEOUT_S = 3600.0
# TensorRT's own word for a message that is only the missing GPU of this machine
_NO_GPU = re.compile(r"cudaError 35|CUDA driver version|catchCudaError")
_FIX = "leave the named node to another precision in the recipe, or drop this target"


Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The dimensions of every input, by name."""


@dataclass(frozen=True)
class Request:
    """What the child process is asked.

    Args:
        onnx: model file; its external data lies beside it.
        engine: the file to write.
        compute_capabilities: CUDA architectures as (major, minor).
        profiles: the shapes that the engine takes, the usual ones first; by input name.
    """

    onnx: str
    engine: str
    compute_capabilities: tuple[tuple[int, int], ...]
    profiles: tuple[dict[str, tuple[int, ...]], ...]


def build_rtx_engine(
    component: str,
    onnx_file: Path,
    engine_file: Path,
    compute_capabilities: tuple[str, ...],
    profiles: Sequence[Shapes],
    timeout_s: float = _TIMEOUT_S,
) -> None:
    """Parse ``onnx_file`` and build ``engine_file``.

    Args:
        component: for messages.
        onnx_file: strongly typed; its external data lies beside it.
        engine_file: in a folder that exists.
        compute_capabilities: such as ``8.6``; the engine runs on each of them.
        profiles: the shapes that the engine takes, the usual ones first.
        timeout_s: after which the builder is ended.

    Raises:
        TargetError: the builder refuses, crashes or does not end within ``timeout_s``; names the component,
            the signal or exit code, and what the builder said.
        ToolMissing: TensorRT for RTX or Polygraphy is not installed.
    """
    for module, package in (("tensorrt_rtx", "tensorrt-rtx-cu13"), ("polygraphy", "polygraphy")):
        if find_spec(module) is None:
            raise ToolMissing.package(package, "rtx")
    request = Request(
        str(onnx_file.resolve()),
        str(engine_file.resolve()),
        tuple(_major_minor(text) for text in compute_capabilities),
        tuple(dict(sorted(shapes.items())) for shapes in profiles),
    )
    with tempfile.TemporaryDirectory(dir=engine_file.parent.resolve()) as folder:
        request_file = Path(folder) / "request.json"
        request_file.write_text(json.dumps(asdict(request)), encoding="utf-8")
        said = _run_child(component, request_file, Path(folder) / "log.txt", timeout_s)
    if not engine_file.is_file() or engine_file.stat().st_size == 0:
        raise TargetError(component, f"TensorRT for RTX wrote no engine: {_telling_line(said)}", _FIX)


def _run_child(component: str, request_file: Path, log_file: Path, timeout_s: float) -> str:
    with log_file.open("wb") as log:
        child = subprocess.Popen(
            [*_CHILD, str(request_file)],
            stdin=subprocess.PIPE,  # held open while we live: the child leaves when it closes
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"},
            cwd=request_file.parent,
        )
        try:
            code: int | None = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
    said = log_file.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return said
    if code is None:
        what = f"was not done after {timeout_s:g} s; its last words: {_last_line(said)}"
    elif code < 0:
        what = f"crashed with {signal.Signals(-code).name}; its last words: {_last_line(said)}"
    else:
        what = f"refuses the graph (exit code {code}): {_telling_line(said)}"
    raise TargetError(component, f"TensorRT for RTX {what}", _FIX)


def _major_minor(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _telling_line(said: str) -> str:
    """The first complaint about the graph; later ones, and those on the missing GPU, only follow from it."""
    lines = [line.strip() for line in said.splitlines()]
    named = [line for line in lines if line.startswith("[E] In node")]
    complaints = [line for line in lines if line.startswith(("[E]", "[!]")) and not _NO_GPU.search(line)]
    return next(iter([*named, *complaints]), _last_line(said))
