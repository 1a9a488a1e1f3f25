"""Rotary attention: attention whose positions turn with real numbers, for classes that use complex ones.

ONNX has no complex numbers. ``processors`` take the place of diffusers' own in its Attention modules.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch.nn.functional import scaled_dot_product_attention

Table: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
"""Cosines and sines [S, D] of latentc.compiler.rotary_table."""


def turn(states: torch.Tensor, table: Table) -> torch.Tensor:
    """Turn each pair of neighbours in ``states`` [B, S, heads, D] by the angle of its place."""
    cosines, sines = (part[:, None] for part in table)
    first, second = states.reshape(*states.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack([-second, first], dim=-1).flatten(3)
    return states * cosines + turned * sines


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Attention of [B, S, heads, D], as [B, S, heads · D]; ``mask`` [B, 1, 1, S] is true where keys count."""
    attended = scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask
    )
    return attended.transpose(1, 2).flatten(2)


class TwoStreamAttention:
    """Takes the place of QwenDoubleStreamAttnProcessor2_0: text and picture attend to both."""

    def __call__(
        self,
        attn: Any,  # noqa: ANN401 # diffusers is untyped
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor,
        image_rotary_emb: tuple[Table, Table],
        attention_mask: None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The picture's states and the text's."""
        image, text = hidden_states, encoder_hidden_states
        image_table, text_table = image_rotary_emb
        size = (-1, attn.inner_dim // attn.heads)
        text_query = turn(attn.norm_added_q(attn.add_q_proj(text).unflatten(-1, size)), text_table)
        text_key = turn(attn.norm_added_k(attn.add_k_proj(text).unflatten(-1, size)), text_table)
        image_query = turn(attn.norm_q(attn.to_q(image).unflatten(-1, size)), image_table)
        image_key = turn(attn.norm_k(attn.to_k(image).unflatten(-1, size)), image_table)
        values = [attn.add_v_proj(text).unflatten(-1, size), attn.to_v(image).unflatten(-1, size)]
        seen = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
        mask = torch.cat([encoder_hidden_states_mask, seen], dim=1)[:, None, None]
        attended = attend(
            torch.cat([text_query, image_query], dim=1),
            torch.cat([text_key, image_key], dim=1),
            torch.cat(values, dim=1),
            mask,
        )
        T = text.shape[1]
        return attn.to_out[0](attended[:, T:]), attn.to_add_out(attended[:, :T])


class OneStreamAttention:
    """Takes the place of ZSingleStreamAttnProcessor."""

    def __call__(
        self,
        attn: Any,  # noqa: ANN401 # diffusers is untyped
        hidden_states: torch.Tensor,
        freqs_cis: Table,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
    ) -> torch.Tensor:
        """The states after attention to themselves; all of them count."""
        size = (attn.heads, -1)
        query = turn(attn.norm_q(attn.to_q(hidden_states).unflatten(-1, size)), freqs_cis)
        key = turn(attn.norm_k(attn.to_k(hidden_states).unflatten(-1, size)), freqs_cis)
        attended: torch.Tensor = attend(query, key, attn.to_v(hidden_states).unflatten(-1, size), None)
        result: torch.Tensor = attn.to_out[0](attended)
        return result
