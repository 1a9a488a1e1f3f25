"""What of this machine decides the bytes of a result: versions of packages (not imported), threads, a GPU."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from latentc.errors import ToolMissing

# which extra brings a package, where it is not `compile`
_EXTRAS = {
    "tensorrt-rtx-cu13": "rtx",
    "polygraphy": "rtx",
    "tensorrt": "tensorrt",
    "onnxruntime-genai": "genai",
    "jinja2": "eval",
}


def threads() -> int:
    """How many threads torch computes with: one a core that this process may use.

    It decides the order of sums, and so the last bits of everything that torch computes here.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver for Linux describes each GPU of a workstation or server."""


def accelerator(described: Path = _NVIDIA_GPUS) -> str:
    """The GPU that torch computes on here, by its name; empty when it computes on the CPU.

    CUDA_VISIBLE_DEVICES set to nothing, or a torch without CUDA, mean the CPU.
    """
    try:
        has_cuda = not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return ""
    if not has_cuda or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ""
    for file in sorted(described.glob("*/information")):
        for line in file.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key == "Model":
                return value.strip()
    return ""


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each of ``packages``, by distribution name.

    Raises:
        ToolMissing: one of them is not installed; names the extra that brings it.
    """
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError as error:
            raise ToolMissing.package(package, _EXTRAS.get(package, "compile")) from error
    return found
