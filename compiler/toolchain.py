"""What of this machine decides the bytes of a result: versions of packages (not imported), and threads."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

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
