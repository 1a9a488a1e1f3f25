"""Given positions turn as those that diffusers counts from a picture's size."""

from __future__ import annotations

from typing import Any

import torch

from latentc.compiler.qwen_positions import QwenPositions


def test_positions_turn_as_in_diffusers() -> None:
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

    original: Any = QwenEmbedRope(10000, [4, 6, 6], scale_rope=True)
    h, w, T = 6, 10, 7
    cpu = torch.device("cpu")
    expected = original([(1, h, w)], max_txt_seq_len=T, device=cpu)
    rows, columns = torch.meshgrid(torch.arange(h) - h // 2, torch.arange(w) - w // 2, indexing="ij")
    image = torch.stack([torch.zeros(h, w), rows, columns], dim=-1).flatten(0, 1)
    text = (torch.arange(T) + max(h, w) // 2)[:, None].expand(-1, 3)
    tables = QwenPositions(original)({"image": image, "text": text.float()}, T, cpu)
    for (cosines, sines), turned in zip(tables, expected, strict=True):
        torch.testing.assert_close(cosines[:, ::2], turned.real, rtol=0, atol=1e-6)
        torch.testing.assert_close(sines[:, ::2], turned.imag, rtol=0, atol=1e-6)
