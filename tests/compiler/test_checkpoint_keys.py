"""Checkpoints of this world name the same weight differently."""

from __future__ import annotations

import pytest

from latentc.compiler.checkpoint_keys import keys_of


@pytest.mark.parametrize(
    ("class_name", "weight", "keys"),
    [
        (
            "AutoencoderKL",
            "decoder.mid_block.attentions.0.to_out.0.bias",
            ("decoder.mid_block.attentions.0.to_out.0.bias", "decoder.mid_block.attentions.0.proj_attn.bias"),
        ),
        ("AutoencoderKL", "decoder.conv_in.bias", ("decoder.conv_in.bias",)),
        ("T5EncoderModel", "encoder.embed_tokens.weight", ("encoder.embed_tokens.weight", "shared.weight")),
        ("T5EncoderModel", "encoder.final_layer_norm.weight", ("encoder.final_layer_norm.weight",)),
        (
            "CLIPTextModel",
            "final_layer_norm.bias",
            ("final_layer_norm.bias", "text_model.final_layer_norm.bias"),
        ),
        ("UNet2DConditionModel", "conv_in.bias", ("conv_in.bias",)),
        ("Gemma2Model", "norm.weight", ("norm.weight", "model.norm.weight")),
        (
            "Qwen2_5_VLForConditionalGeneration",
            "model.language_model.norm.weight",
            ("model.language_model.norm.weight", "model.norm.weight"),
        ),
        (
            "Qwen2_5_VLForConditionalGeneration",
            "model.visual.merger.ln_q.weight",
            ("model.visual.merger.ln_q.weight", "visual.merger.ln_q.weight"),
        ),
        (
            "UNet2DConditionModel",
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight",
            ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight",),
        ),
    ],
)
def test_the_modules_own_name_comes_first(class_name: str, weight: str, keys: tuple[str, ...]) -> None:
    assert keys_of(class_name, weight) == keys
