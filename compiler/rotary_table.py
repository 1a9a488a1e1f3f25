"""Rotary tables: the cosines and sines of positions, without the float64 that TensorRT does not have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class RotaryTable(nn.Module):
    """Position ids [S, axes] → cosines and sines [S, D] in float32, as diffusers' FluxPosEmbed gives them.

    diffusers computes the angles in float64, which TensorRT does not have. Here only the frequencies are,
    as constants: for ids below 1000 the angles differ by less than 1e-4.
    """

    frequencies: torch.Tensor

    def __init__(self, theta: float, axes: Sequence[int]) -> None:
        super().__init__()
        table = torch.zeros((len(axes), sum(axes)), dtype=torch.float64, device="cpu")
        start = 0
        for axis, width in enumerate(axes):
            steps = torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width
            table[axis, start : start + width] = (theta**-steps).repeat_interleave(2)
            start += width
        self.register_buffer("frequencies", table.float(), persistent=False)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of every angle, each twice in a row."""
        angles = (ids[:, :, None] * self.frequencies).sum(1)
        return angles.cos(), angles.sin()
