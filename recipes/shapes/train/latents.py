"""A store of encoded pictures, so that training a denoiser touches neither renderer nor autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from latentc.recipes.shapes.render import Style
from latentc.recipes.shapes.scene import Scene
from latentc.recipes.shapes.train.pictures import render_all, tensor_from_pictures
from latentc.recipes.shapes.train.progress import Progress

SINGLES_SHARE = 0.2
"""Share of single things in a batch; they are only a twentieth of all scenes."""


@dataclass(frozen=True)
class LatentStore:
    """Scaled latents of rendered scenes.

    Args:
        latents: [pictures, C, h, w] float16, mean 0 and deviation 1.
        rows: [pictures] which scene each picture shows, an index into the scenes it was made from.
        singles: indices of the pictures that show one thing.
    """

    latents: torch.Tensor
    rows: np.ndarray[tuple[int], np.dtype[np.int64]]
    singles: np.ndarray[tuple[int], np.dtype[np.int64]]

    def draw(
        self, count: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Latents [B, C, h, w] float32 of ``count`` pictures, and their scenes' indices [B]."""
        picks = rng.integers(0, len(self.rows), count)
        extra = int(SINGLES_SHARE * count)
        picks[:extra] = rng.choice(self.singles, extra)
        return self.latents[torch.from_numpy(picks)].float(), self.rows[picks]


@torch.no_grad()
def make_latent_store(
    vae: AutoencoderKL, scenes: Sequence[Scene], count: int, seed: int, cache: Path, style: Style = Style.FLAT
) -> LatentStore:
    """Render and encode ``count`` pictures of ``scenes``, single things more often; kept in ``cache``."""
    if cache.exists():
        saved = torch.load(cache, weights_only=True)
        return _store(saved["latents"], saved["rows"].numpy(), scenes)
    rng = np.random.default_rng(seed)
    singles = np.array([i for i, scene in enumerate(scenes) if len(scene.things) == 1])
    extra = min(len(singles) * 3, count // 6)
    rows = np.concatenate([rng.permutation(len(scenes))[: count - extra], rng.choice(singles, extra)])
    seeds = rng.integers(1, 1 << 30, len(rows)).tolist()
    progress = Progress("latents", len(rows))
    parts = []
    for start in range(0, len(rows), 64):
        picked = rows[start : start + 64]
        pictures = render_all([scenes[int(row)] for row in picked], seeds[start : start + 64], style)
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(tensor_from_pictures(pictures)).latent_dist.mean.float()
        parts.append(((mean - vae.config.shift_factor) * vae.config.scaling_factor).half())
        if start % 6400 == 0:
            progress.write(start + len(picked))
    latents = torch.cat(parts)
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"latents": latents, "rows": torch.from_numpy(rows)}, cache)
    return _store(latents, rows, scenes)


def _store(
    latents: torch.Tensor, rows: np.ndarray[tuple[int], np.dtype[np.int64]], scenes: Sequence[Scene]
) -> LatentStore:
    singles = np.array([i for i, row in enumerate(rows.tolist()) if len(scenes[row].things) == 1])
    return LatentStore(latents, rows, singles)
