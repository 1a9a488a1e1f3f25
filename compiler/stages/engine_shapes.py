"""Which shapes an engine is made for: the recipe's picture size, one prompt at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from latentc.errors import InternalError
from latentc.recipes.family import FLUX, Component, Family
from latentc.runtime.manifest import TensorEntry

AxisSizes: TypeAlias = "tuple[tuple[str, int], ...]"
"""A number for every dynamic axis of a component, by the axis letters of latentc.recipes.family."""

# FLUX packs 2×2 latent pixels into a token
_FLUX_PATCH = 2


def engine_sizes(
    family: Family,
    component: Component,
    height: int,
    width: int,
    downscale: int,
    tokens: Mapping[str, int],
    *,
    guided: bool,
) -> tuple[AxisSizes, ...]:
    """The sizes of ``component``'s dynamic axes when one prompt is drawn, the usual ones first.

    Args:
        family: of the pipeline.
        component: of the family.
        height: pixels.
        width: pixels.
        downscale: pixels per latent pixel.
        tokens: T by tokenizer folder, ``tokenizer`` and ``tokenizer_2``.
        guided: the denoiser usually sees the negative prompt in the same batch.
    """
    h, w = height // downscale, width // downscale
    is_second = component is Component.TEXT_ENCODER_2 or (
        family is FLUX and component is Component.TRANSFORMER
    )
    sizes = {
        "T": tokens["tokenizer_2" if is_second else "tokenizer"],
        "H": height,
        "W": width,
        "h": h,
        "w": w,
        "S": (h // _FLUX_PATCH) * (w // _FLUX_PATCH),
    }
    batches = (2, 1) if guided and component is family.denoiser and family is not FLUX else (1,)
    used = {axis for tensor in family.spec(component).inputs for axis in tensor.axes}
    return tuple(
        (("B", batch), *((axis, size) for axis, size in sorted(sizes.items()) if axis in used))
        for batch in batches
    )


def shapes_of(inputs: tuple[TensorEntry, ...], sizes: AxisSizes) -> dict[str, tuple[int, ...]]:
    """Exact shapes of ``inputs``; raises InternalError for an axis that ``sizes`` does not have."""
    known = dict(sizes)
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in inputs:
        unknown = [axis for axis in tensor.shape if isinstance(axis, str) and axis not in known]
        if unknown:
            raise InternalError(tensor.name, f"has the axis '{unknown[0]}', sizes are known for {known}")
        shapes[tensor.name] = tuple(axis if isinstance(axis, int) else known[axis] for axis in tensor.shape)
    return shapes
