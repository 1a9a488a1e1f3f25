"""Small configs: published architectures at two blocks' depth and a width that a test can pay for.

Every kind of block that the published config has is still there: both kinds of attention, both streams, one
block with and one without what only some have.
"""

from __future__ import annotations

from collections.abc import Mapping

from latentc.recipes.config import Config
from latentc.recipes.published.catalogue import published_config

_CLIP = {
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "vocab_size": 100,
    "projection_dim": 48,
}
_QWEN = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "bos_token_id": None,
    "eos_token_id": None,
}
_UNET = {"norm_num_groups": 8, "cross_attention_dim": 64, "layers_per_block": 1}
_SD15 = {**_UNET, "block_out_channels": [32, 64, 64, 64], "attention_head_dim": 4}
_SDXL = {
    **_UNET,
    "block_out_channels": [32, 64, 64],
    "attention_head_dim": [2, 4, 4],
    "transformer_layers_per_block": [1, 1, 2],
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 6 * 32 + 48,
}
_SD3 = {
    "num_layers": 3,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "caption_projection_dim": 64,
    "pooled_projection_dim": 48,
    "pos_embed_max_size": 24,
    "sample_size": 16,
}
_FLUX = {
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 48,
    "in_channels": 16,
    "axes_dims_rope": [8, 12, 12],
}
_SANA = {
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 32,
    "cross_attention_dim": 64,
    "caption_channels": 64,
}
_VAE = {"block_out_channels": [16, 32, 32, 32], "norm_num_groups": 8, "layers_per_block": 1}
_CONTROLNET = {"conditioning_embedding_out_channels": [8, 8, 16, 16]}

_CHANGES: Mapping[str, Config] = {
    "clip-l": _CLIP,
    "clip-g": _CLIP,
    "t5-xxl": {"num_layers": 2, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "vocab_size": 100},
    "gemma-2-2b": {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 100,
    },
    # FLUX.2 reads what its 27th layer gives
    "qwen3-4b": {**_QWEN, "num_hidden_layers": 28, "head_dim": 32},
    "qwen2.5-vl-7b": {
        **_QWEN,
        "num_hidden_layers": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
        },
    },
    "unet-sd15": _SD15,
    "unet-sdxl": _SDXL,
    "unet-sdxl-turbo": _SDXL,
    "controlnet-sd15": {**_SD15, **_CONTROLNET},
    "controlnet-sdxl": {**_SDXL, **_CONTROLNET},
    "transformer-sd35-medium": {**_SD3, "dual_attention_layers": [0]},
    "transformer-sd35-large": _SD3,
    "transformer-pixart-sigma": {
        "num_layers": 2,
        "attention_head_dim": 24,
        "num_attention_heads": 4,
        "cross_attention_dim": 96,
        "caption_channels": 64,
        "sample_size": 32,
    },
    "transformer-sana-1600m": _SANA,
    "transformer-sana-600m": _SANA,
    "transformer-flux-dev": _FLUX,
    "transformer-flux-schnell": _FLUX,
    "transformer-flux2-klein-4b": {
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 192,
        "in_channels": 16,
        "axes_dims_rope": [8, 8, 8, 8],
    },
    "transformer-z-image": {
        "dim": 64,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 64,
        "axes_dims": [8, 12, 12],
    },
    "transformer-qwen-image": {
        "num_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "in_channels": 16,
        "out_channels": 4,
        "axes_dims_rope": [8, 12, 12],
    },
    "vae-sd": _VAE,
    "vae-sdxl": _VAE,
    "vae-sd3": _VAE,
    "vae-flux": _VAE,
    "vae-flux2": _VAE,
    "vae-qwen-image": {"base_dim": 16, "num_res_blocks": 1},
    "dc-ae-f32c32": {
        "encoder_block_out_channels": [16, 16, 32, 32, 32, 32],
        "decoder_block_out_channels": [16, 16, 32, 32, 32, 32],
        "encoder_layers_per_block": [1] * 6,
        "decoder_layers_per_block": [1] * 6,
        "attention_head_dim": 16,
    },
}


def small_config(part: str) -> Config:
    """The config called ``part``, made small."""
    return {**published_config(part), **_CHANGES[part]}
