"""Doctor: what this machine can do, and what to install for the rest."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata, util

# The packages that each extra brings, with the import that proves it is there.
EXTRAS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "",
        (("numpy", "numpy"), ("onnxruntime", "onnxruntime"), ("tokenizers", "tokenizers"), ("pillow", "PIL")),
    ),
    (
        "compile",
        (
            ("torch", "torch"),
            ("diffusers", "diffusers"),
            ("transformers", "transformers"),
            ("onnx", "onnx"),
            ("onnx-ir", "onnx_ir"),
            ("onnxscript", "onnxscript"),
            ("nncf", "nncf"),
            ("peft", "peft"),
            ("pydantic", "pydantic"),
        ),
    ),
    ("rtx", (("tensorrt-rtx-cu13", "tensorrt_rtx"), ("polygraphy", "polygraphy"))),
    ("tensorrt", (("tensorrt", "tensorrt"),)),
    ("genai", (("onnxruntime-genai", "onnxruntime_genai"),)),
    ("eval", (("jinja2", "jinja2"),)),
)


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report; ``fix`` is empty when nothing is missing."""

    what: str
    found: str
    fix: str


def examine() -> tuple[Check, ...]:
    """Look at this machine without importing anything heavy."""
    checks = [
        Check(
            "python",
            platform.python_version(),
            "" if sys.version_info >= (3, 10) else "install Python 3.10 or later",
        ),
        Check("machine", f"{platform.machine()}, {os.cpu_count()} cores, {_memory_gib():.1f} GiB", ""),
        Check("free disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB", ""),
        Check("NVIDIA GPU", _gpu(), ""),
    ]
    for extra, packages in EXTRAS:
        for package, module in packages:
            where = f"[{extra}] {package}" if extra else package
            if util.find_spec(module) is None:
                checks.append(
                    Check(
                        where,
                        "missing",
                        f"pip install 'latentc[{extra}]'" if extra else "pip install latentc",
                    )
                )
            else:
                checks.append(Check(where, _version(package), ""))
    return tuple(checks)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "present, of unknown version"  # a board's own TensorRT comes without pip metadata


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _gpu() -> str:
    if os.path.exists("/proc/driver/nvidia/version"):
        return "driver loaded"
    if os.path.exists("/etc/nv_tegra_release"):
        return "Jetson (integrated)"
    return "none: engines cannot run here, bundles for onnxruntime can"
