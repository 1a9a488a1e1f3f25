"""Stable Diffusion 1 and 2: one CLIP text encoder, a UNet with cross-attention, a VAE of 4 channels."""

from __future__ import annotations

from latentc.recipes.families.autoencoder import AUTOENCODER_KL
from latentc.recipes.families.clip import CLIP_LAST_STATES
from latentc.recipes.families.unet import UNET
from latentc.recipes.family import Component, Family

STABLE_DIFFUSION = Family(
    "stable-diffusion",
    "StableDiffusionPipeline",
    Component.UNET,
    (CLIP_LAST_STATES, UNET, *AUTOENCODER_KL),
    doubles_batch=True,
    unloaded=("safety_checker", "feature_extractor"),
)
