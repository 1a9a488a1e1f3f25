"""Pipelines of random weights, large enough that weights and activations show beside what Python takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests import tiny_models

if TYPE_CHECKING:
    import torch


def write_middle_stable_diffusion(folder: Path) -> Path:
    """A StableDiffusionPipeline of 165 million weights; its natural picture is 256×256."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(192, 384, 576),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        cross_attention_dim=512,
        attention_head_dim=8,
    )
    pipeline = StableDiffusionPipeline(
        vae=_half(_autoencoder(shift=None)),
        text_encoder=_half(_clip(512, 8)),
        tokenizer=tiny_models.clip_tokenizer(folder),
        unet=_half(unet),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def write_middle_flux(folder: Path) -> Path:
    """A FluxPipeline of 240 million weights; its natural picture is 256×256."""
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=3,
        num_single_layers=6,
        attention_head_dim=64,
        num_attention_heads=16,
        joint_attention_dim=512,
        pooled_projection_dim=256,
        axes_dims_rope=(16, 24, 24),
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=tiny_models.T5_PIECES,
            d_model=512,
            d_kv=64,
            d_ff=1536,
            num_layers=8,
            num_heads=8,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_half(_autoencoder(shift=0.1)),
        text_encoder=_half(_clip(256, 4)),
        tokenizer=tiny_models.clip_tokenizer(folder),
        text_encoder_2=_half(t5),
        tokenizer_2=tiny_models.t5_tokenizer(),
        transformer=_half(transformer),
    )
    pipeline.save_pretrained(folder)
    return folder


def _autoencoder(shift: float | None) -> torch.nn.Module:
    from diffusers import AutoencoderKL

    autoencoder: torch.nn.Module = AutoencoderKL(
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 128, 256, 256),
        layers_per_block=2,
        shift_factor=shift,
    )
    return autoencoder


def _clip(width: int, layers: int) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder: torch.nn.Module = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=256 * 2 + 2,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=tiny_models.TOKENS,
            bos_token_id=512,
            eos_token_id=513,
            pad_token_id=513,
        )
    )
    return encoder


def _half(module: torch.nn.Module) -> torch.nn.Module:
    import torch

    halved: torch.nn.Module = module.eval().to(torch.float16)
    return halved
