"""Positions of Qwen-Image's transformer as inputs of the graph, without complex numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from latentc.compiler.rotary_table import RotaryTable


class QwenPositions(nn.Module):
    """Takes the place of QwenEmbedRope: where that counts positions from a size, these are given.

    Args:
        original: diffusers' module.
    """

    def __init__(self, original: Any) -> None:  # noqa: ANN401 # diffusers is untyped
        super().__init__()
        self.table = RotaryTable(original.theta, original.axes_dim)

    def forward(
        self, ids: dict[str, torch.Tensor], max_txt_seq_len: int, device: torch.device
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Cosines and sines of ``image`` [S, 3] and of ``text`` [T, 3]; the rest is known from the ids."""
        return self.table(ids["image"]), self.table(ids["text"])
