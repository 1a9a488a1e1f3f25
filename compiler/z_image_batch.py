"""Z-Image's transformer over a batch: diffusers' takes lists of pictures and texts, and complex numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from latentc.compiler.rotary_attention import OneStreamAttention
from latentc.compiler.rotary_table import RotaryTable

_PATCH = 2


class ZImageBatch(nn.Module):
    """Takes the place of ZImageTransformer2DModel, with its weights under the same names.

    Pictures are of one size, with a number of patches that is a multiple of 32, and texts of one length T, a
    multiple of 32 as well: these are the sizes to which diffusers' own pads.

    Args:
        original: diffusers' module, of a checkpoint that takes no pictures as conditions.
    """

    def __init__(self, original: Any) -> None:  # noqa: ANN401 # diffusers is untyped
        super().__init__()
        for name, part in original.named_children():
            self.add_module(name, part)
        for name, parameter in original.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.config = original.config
        self.positions = RotaryTable(original.rope_theta, original.axes_dims)
        attentions: list[Any] = [part for part in self.modules() if hasattr(part, "processor")]
        for attention in attentions:
            attention.processor = OneStreamAttention()

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, cap_feats: dict[str, torch.Tensor], return_dict: bool = False
    ) -> tuple[torch.Tensor]:
        """Denoise once.

        Args:
            x: latents [B, C, h, w].
            t: [B], 0…1 from noise to picture.
            cap_feats: ``states`` [B, T, D], and ``mask`` [B, T], 1 where a token is of the prompt.
            return_dict: never.
        """
        parts: Any = self
        key = f"{_PATCH}-1"
        modulation = parts.t_embedder(t * self.config.t_scale)
        h, w = x.shape[2] // _PATCH, x.shape[3] // _PATCH
        T = cap_feats["states"].shape[1]
        text_table, image_table = self._tables(T, h, w, x.device)

        B, C = x.shape[:2]
        patches = x.reshape(B, C, h, _PATCH, w, _PATCH).permute(0, 2, 4, 3, 5, 1)
        image = parts.all_x_embedder[key](patches.flatten(3).flatten(1, 2))
        for layer in parts.noise_refiner:
            image = layer(image, None, image_table, modulation)
        is_prompt = cap_feats["mask"][:, :, None] > 0
        text = torch.where(is_prompt, parts.cap_embedder(cap_feats["states"]), parts.cap_pad_token)
        for layer in parts.context_refiner:
            text = layer(text, None, text_table)

        both = torch.cat([image, text], dim=1)
        table = tuple(torch.cat(pair) for pair in zip(image_table, text_table, strict=True))
        for layer in parts.layers:
            both = layer(both, None, table, modulation)
        patches = parts.all_final_layer[key](both, c=modulation)[:, : h * w]
        rows = patches.reshape(B, h, w, _PATCH, _PATCH, C).permute(0, 5, 1, 3, 2, 4)
        return (rows.reshape(B, C, h * _PATCH, w * _PATCH),)

    def _tables(
        self, T: int, h: int, w: int, device: torch.device
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Where text and patches stand: text along the first axis, the picture behind it on the others."""

        def count(length: int) -> torch.Tensor:
            return torch.arange(length, dtype=torch.float32, device=device)

        zeros = torch.zeros_like(count(T))
        text = torch.stack([count(T) + 1, zeros, zeros], dim=-1)
        rows = count(h)[:, None].expand(-1, w)
        columns = count(w)[None].expand(h, -1)
        behind = torch.zeros_like(rows) + (T + 1)
        image = torch.stack([behind, rows, columns], dim=-1).flatten(0, 1)
        return self.positions(text), self.positions(image)
