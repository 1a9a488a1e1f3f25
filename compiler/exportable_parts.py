"""Exportable parts: what stands in for those modules of diffusers that ONNX or TensorRT cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from latentc.compiler.patch_positions import PatchPositions
from latentc.compiler.qwen_positions import QwenPositions
from latentc.compiler.rotary_attention import TwoStreamAttention
from latentc.compiler.rotary_table import RotaryTable
from latentc.compiler.z_image_batch import ZImageBatch


def _rotary_table(part: Any) -> nn.Module:  # noqa: ANN401 # diffusers is untyped
    return RotaryTable(part.theta, part.axes_dim)


def _patch_positions(part: Any) -> nn.Module:  # noqa: ANN401 # diffusers is untyped
    # SD3 crops a stored table, and SANA has no positions: ONNX can say both
    is_computed = part.pos_embed is not None and part.pos_embed_max_size is None
    return PatchPositions(part) if is_computed else part


def _two_streams(part: Any) -> nn.Module:  # noqa: ANN401 # diffusers is untyped
    if type(part.processor).__name__ == "QwenDoubleStreamAttnProcessor2_0":
        part.processor = TwoStreamAttention()
    module: nn.Module = part
    return module


REPLACEMENTS: tuple[tuple[str, Callable[[Any], nn.Module]], ...] = (
    ("FluxPosEmbed", _rotary_table),
    ("Flux2PosEmbed", _rotary_table),
    ("PatchEmbed", _patch_positions),
    ("QwenEmbedRope", QwenPositions),
    ("Attention", _two_streams),
    ("ZImageTransformer2DModel", ZImageBatch),
)
"""Names of diffusers' classes, each with what makes the module that takes its place, with equal results."""


def make_exportable(module: nn.Module) -> nn.Module:
    """``module`` with those parts replaced that have a replacement, at any depth; or what replaces it all."""
    replacements = dict(REPLACEMENTS)
    whole = replacements.get(type(module).__name__)
    if whole is not None:
        return whole(module)
    for name, part in list(module.named_modules()):
        make = replacements.get(type(part).__name__)
        if make is not None:
            module.set_submodule(name, make(part))
    return module
