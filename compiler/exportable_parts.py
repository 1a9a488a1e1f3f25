"""Exportable parts: what stands in for those modules of diffusers that ONNX or TensorRT cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from latentc.compiler.rotary_table import RotaryTable


def _rotary_table(part: Any) -> nn.Module:  # noqa: ANN401 # diffusers is untyped
    return RotaryTable(part.theta, part.axes_dim)


REPLACEMENTS: tuple[tuple[str, Callable[[Any], nn.Module]], ...] = (("FluxPosEmbed", _rotary_table),)
"""Names of diffusers' classes, each with what makes the module that takes its place, with equal results."""


def make_exportable(module: nn.Module) -> None:
    """Replace those parts of ``module`` that have a replacement, at any depth."""
    replacements = dict(REPLACEMENTS)
    for name, part in list(module.named_modules()):
        make = replacements.get(type(part).__name__)
        if make is not None:
            module.set_submodule(name, make(part))
