"""Attention that turns with real numbers gives what diffusers' processors give with complex ones."""

from __future__ import annotations

from typing import Any

import torch

from latentc.compiler.rotary_attention import OneStreamAttention, TwoStreamAttention
from latentc.compiler.rotary_table import RotaryTable

HEADS, WIDTH = 2, 16
# sums of float32 in another order
TOLERANCE = 1e-5


def positions(length: int) -> torch.Tensor:
    return torch.randint(0, 60, (length, 3), generator=torch.Generator().manual_seed(length)).float()


def complex_table(cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    return torch.complex(cosines[:, ::2].contiguous(), sines[:, ::2].contiguous())


def attention(**settings: Any) -> Any:
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    width = HEADS * WIDTH
    return Attention(query_dim=width, heads=HEADS, dim_head=WIDTH, qk_norm="rms_norm", **settings).eval()


@torch.no_grad()
def test_two_streams_attend_as_in_qwen_image() -> None:
    from diffusers.models.transformers.transformer_qwenimage import QwenDoubleStreamAttnProcessor2_0

    width = HEADS * WIDTH
    attn = attention(
        added_kv_proj_dim=width,
        out_dim=width,
        context_pre_only=False,
        bias=True,
        processor=QwenDoubleStreamAttnProcessor2_0(),
    )
    image, text = torch.randn(2, 12, width), torch.randn(2, 5, width)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    table = RotaryTable(10000, (4, 6, 6))
    tables = table(positions(12)), table(positions(5))
    expected = attn(
        hidden_states=image,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=mask,
        image_rotary_emb=tuple(complex_table(*one) for one in tables),
    )
    attn.processor = TwoStreamAttention()
    actual = attn(
        hidden_states=image,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=mask,
        image_rotary_emb=tables,
    )
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_one_stream_attends_as_in_z_image() -> None:
    from diffusers.models.transformers.transformer_z_image import ZSingleStreamAttnProcessor

    attn = attention(bias=False, out_bias=False, processor=ZSingleStreamAttnProcessor())
    states = torch.randn(2, 12, HEADS * WIDTH)
    table = RotaryTable(256, (4, 6, 6))(positions(12))
    expected = attn(states, freqs_cis=complex_table(*table).expand(2, -1, -1))
    attn.processor = OneStreamAttention()
    actual = attn(states, freqs_cis=table)
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)
