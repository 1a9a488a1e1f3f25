"""Which shapes an engine is made for: the recipe's picture size, one prompt at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from latentc.errors import InternalError
from latentc.recipes.family import Component, Family, axis_size
from latentc.runtime.manifest import TensorEntry

AxisSizes: TypeAlias = "tuple[tuple[str, int], ...]"
"""A number for every dynamic axis of a component, by the axis letters of latentc.recipes.family."""


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
        tokens: T by tokenizer folder.
        guided: the denoiser usually sees the negative prompt in the same batch.
    """
    h, w = height // downscale, width // downscale
    spec = family.spec(component)
    sizes = {
        "H": height,
        "W": width,
        "h": h,
        "w": w,
        "S": (h // family.patch) * (w // family.patch),
    }
    if spec.tokenizer:
        sizes["T"] = tokens[spec.tokenizer]
    batches = (2, 1) if guided and component is family.denoiser and family.doubles_batch else (1,)
    used = {axis.partition("/")[0] for tensor in spec.inputs for axis in tensor.axes}
    return tuple(
        (("B", batch), *((axis, size) for axis, size in sorted(sizes.items()) if axis in used))
        for batch in batches
    )


def shapes_of(inputs: tuple[TensorEntry, ...], sizes: AxisSizes) -> dict[str, tuple[int, ...]]:
    """Exact shapes of ``inputs``; raises InternalError for an axis that ``sizes`` does not have."""
    known = dict(sizes)
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in inputs:
        shape = []
        for axis in tensor.shape:
            size = axis if isinstance(axis, int) else axis_size(axis, known)
            if size is None:
                raise InternalError(tensor.name, f"has the axis '{axis}', sizes are known for {known}")
            shape.append(size)
        shapes[tensor.name] = tuple(shape)
    return shapes
