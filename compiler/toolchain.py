"""Versions of the packages that decide a result's bytes, read without importing them."""

from __future__ import annotations

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
