"""Stable Diffusion XL: base, Turbo and Lightning. Two CLIP text encoders, and a UNet told about sizes."""

from __future__ import annotations

from dataclasses import replace

from latentc.recipes.config import Config, number
from latentc.recipes.families.autoencoder import AUTOENCODER_KL
from latentc.recipes.families.clip import CLIP_PENULTIMATE, clip_projected
from latentc.recipes.families.unet import UNET
from latentc.recipes.family import Component, Family, TensorSpec

_SIZES_TOLD = 6
"""Original height and width, top and left of the crop, wanted height and width."""


def _pooled_width(config: Config) -> int:
    """What the added embedding takes, less what the told sizes take of it."""
    told = _SIZES_TOLD * number(config, "addition_time_embed_dim")
    return number(config, "projection_class_embeddings_input_dim") - told


UNET_XL = replace(
    UNET,
    inputs=(
        *UNET.inputs,
        TensorSpec("pooled_states", "float32", ("B", "D_pooled*"), "added_cond_kwargs.text_embeds"),
        TensorSpec("time_ids", "float32", ("B", "6*"), "added_cond_kwargs.time_ids"),
    ),
    sizes=(*UNET.sizes, ("D_pooled*", _pooled_width), ("6*", _SIZES_TOLD)),
    absent=("class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim"),
)

STABLE_DIFFUSION_XL = Family(
    "stable-diffusion-xl",
    "StableDiffusionXLPipeline",
    Component.UNET,
    (CLIP_PENULTIMATE, clip_projected(Component.TEXT_ENCODER_2), UNET_XL, *AUTOENCODER_KL),
    doubles_batch=True,
    unloaded=("feature_extractor", "image_encoder"),
    zeroes_empty_negative=True,
)
