"""Patch positions: sinusoids of a picture's patches, computed in the graph for whatever size it has."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class PatchPositions(nn.Module):
    """Latents [B, C, h, w] → patches [B, S, D] with their positions, as diffusers' PatchEmbed gives them.

    diffusers computes the sinusoids in float64, which TensorRT does not have, and keeps a table for the size
    in the config, of many megabytes. Here only the frequencies are constants: for pictures below 256 patches
    a side the angles differ by less than 1e-5.

    Args:
        original: diffusers' module, without crops of a stored table.
    """

    frequencies: torch.Tensor

    def __init__(self, original: Any) -> None:  # noqa: ANN401 # diffusers is untyped
        super().__init__()
        self.proj = original.proj
        self._base = original.base_size
        self._scale = float(original.interpolation_scale)
        quarter = original.pos_embed.shape[-1] // 4
        steps = torch.arange(quarter, dtype=torch.float64, device="cpu") / quarter
        self.register_buffer("frequencies", (10000**-steps).float(), persistent=False)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Cut into patches, and add to each what its row and column are."""
        patches: torch.Tensor = self.proj(latent)
        rows, columns = self._sinusoids(patches.shape[2]), self._sinusoids(patches.shape[3])
        # diffusers puts the columns first
        across = columns[None].expand(rows.shape[0], -1, -1)
        down = rows[:, None].expand(-1, columns.shape[0], -1)
        positions = torch.cat([across, down], dim=-1).flatten(0, 1)
        return patches.flatten(2).transpose(1, 2) + positions

    def _sinusoids(self, length: int) -> torch.Tensor:
        """[length, D / 2]: sines, then cosines, of the places 0…base / scale."""
        places = torch.arange(length, dtype=torch.float32, device=self.frequencies.device)
        places = places * self._base / length / self._scale
        angles = places[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
