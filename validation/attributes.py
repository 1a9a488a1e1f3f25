"""Attribute accuracy: does a picture show exactly what its prompt says? For prompts of the shapes grammar."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from latentc.errors import RecipeError
from latentc.recipes.shapes.caption import scene_from_caption
from latentc.recipes.shapes.read import shows
from latentc.recipes.shapes.scene import Scene

SMALLEST_SIDE_PIXELS = 32
"""Smaller pictures cannot be read."""


def scenes_of_prompts(prompts: Iterable[str]) -> tuple[Scene, ...] | None:
    """The scenes that ``prompts`` describe, or None unless every one is a sentence of the grammar."""
    try:
        return tuple(scene_from_caption(prompt) for prompt in prompts)
    except RecipeError:
        return None  # not an error: any other prompts are as good, only nobody can check their attributes


def wrong_attributes(picture: npt.NDArray[np.uint8], scene: Scene) -> tuple[str, ...]:
    """Which of background, count, placement, size, colour and shape ``picture`` does not show as asked.

    Args:
        picture: [H, W, 3] uint8, H equal to W and at least 32.
        scene: what it should show.

    Returns:
        Names of the wrong attributes; empty when the picture is entirely right.
    """
    return tuple(name for name, right in shows(picture, scene).by_attribute.items() if not right)
