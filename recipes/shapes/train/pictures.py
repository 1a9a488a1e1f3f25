"""Rendered training data: pictures as latents or tensors, and captions, all drawn from seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from latentc.recipes.shapes.render import Picture, Style, render
from latentc.recipes.shapes.scene import Scene


def draw_scenes(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[Scene]:
    """Draw ``count`` of ``scenes`` with replacement, single things as often as every fifth time."""
    singles = [scene for scene in scenes if len(scene.things) == 1]
    pairs = [scene for scene in scenes if len(scene.things) == 2]
    from_singles = rng.random(count) < 0.2
    picks = rng.random(count)
    return [
        singles[int(pick * len(singles))] if single else pairs[int(pick * len(pairs))]
        for single, pick in zip(from_singles, picks, strict=True)
    ]


def render_all(scenes: Sequence[Scene], seeds: Sequence[int], style: Style = Style.FLAT) -> Picture:
    """Render each scene with its seed: [B, H, W, 3] uint8."""
    return np.stack([render(scene, seed, style=style) for scene, seed in zip(scenes, seeds, strict=True)])


def tensor_from_pictures(pictures: Picture) -> torch.Tensor:
    """[B, H, W, 3] uint8 to [B, 3, H, W] float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def pictures_from_tensor(tensor: torch.Tensor) -> Picture:
    """[B, 3, H, W] in [-1, 1] to [B, H, W, 3] uint8."""
    scaled = (tensor.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
