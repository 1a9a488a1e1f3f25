"""PUBLISHED: the models that people use, each as the configs of its components. Weights are not here.

``NAME.json`` beside this file is one config, typed in from the model card and diffusers' defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from latentc.errors import UsageError, nearest
from latentc.recipes.config import Config
from latentc.recipes.families.catalogue import family_named
from latentc.recipes.family import ComponentSpec, Family


@dataclass(frozen=True)
class PublishedModel:
    """One model.

    Args:
        name: as people call it.
        family_name: of latentc.recipes.families.catalogue.
        parts: by folder of the pipeline, the name of its config.
        pixels: height and width of the pictures that it was trained for.
        text_tokens: T of the denoiser's text.
    """

    name: str
    family_name: str
    parts: tuple[tuple[str, str], ...]
    pixels: int
    text_tokens: int

    @property
    def family(self) -> Family:
        """What kind of pipeline it is."""
        return family_named(self.family_name)

    def config_of(self, spec: ComponentSpec) -> Config:
        """The config of one of the family's components."""
        return published_config(dict(self.parts)[spec.folder])


_SD_TEXT = ("text_encoder", "clip-l")
_T5 = ("text_encoder_2", "t5-xxl")
_XL = (_SD_TEXT, ("text_encoder_2", "clip-g"))
_SD3 = (*_XL, ("text_encoder_3", "t5-xxl"), ("vae", "vae-sd3"))
_FLUX = (_SD_TEXT, _T5, ("vae", "vae-flux"))
_SANA = (("text_encoder", "gemma-2-2b"), ("vae", "dc-ae-f32c32"))

PUBLISHED: tuple[PublishedModel, ...] = (
    PublishedModel(
        "sd-1.5", "stable-diffusion", (_SD_TEXT, ("unet", "unet-sd15"), ("vae", "vae-sd")), 512, 77
    ),
    PublishedModel(
        "sdxl-base", "stable-diffusion-xl", (*_XL, ("unet", "unet-sdxl"), ("vae", "vae-sdxl")), 1024, 77
    ),
    PublishedModel(
        "sdxl-turbo", "stable-diffusion-xl", (*_XL, ("unet", "unet-sdxl-turbo"), ("vae", "vae-sdxl")), 512, 77
    ),
    PublishedModel(
        "sdxl-lightning", "stable-diffusion-xl", (*_XL, ("unet", "unet-sdxl"), ("vae", "vae-sdxl")), 1024, 77
    ),
    PublishedModel(
        "sd-3.5-medium", "stable-diffusion-3", (*_SD3, ("transformer", "transformer-sd35-medium")), 1024, 333
    ),
    PublishedModel(
        "sd-3.5-large", "stable-diffusion-3", (*_SD3, ("transformer", "transformer-sd35-large")), 1024, 333
    ),
    PublishedModel(
        "pixart-sigma",
        "pixart-sigma",
        (("text_encoder", "t5-xxl"), ("transformer", "transformer-pixart-sigma"), ("vae", "vae-sdxl")),
        1024,
        300,
    ),
    PublishedModel("sana-1.6b", "sana", (*_SANA, ("transformer", "transformer-sana-1600m")), 1024, 300),
    PublishedModel("sana-0.6b", "sana", (*_SANA, ("transformer", "transformer-sana-600m")), 1024, 300),
    PublishedModel("flux.1-dev", "flux", (*_FLUX, ("transformer", "transformer-flux-dev")), 1024, 512),
    PublishedModel(
        "flux.1-schnell", "flux", (*_FLUX, ("transformer", "transformer-flux-schnell")), 1024, 256
    ),
    PublishedModel(
        "flux.1-kontext-dev", "flux", (*_FLUX, ("transformer", "transformer-flux-dev")), 1024, 512
    ),
    PublishedModel(
        "flux.2-klein-4b",
        "flux-2",
        (("text_encoder", "qwen3-4b"), ("transformer", "transformer-flux2-klein-4b"), ("vae", "vae-flux2")),
        1024,
        512,
    ),
    PublishedModel(
        "z-image-turbo",
        "z-image",
        (("text_encoder", "qwen3-4b"), ("transformer", "transformer-z-image"), ("vae", "vae-flux")),
        1024,
        512,
    ),
    PublishedModel(
        "qwen-image",
        "qwen-image",
        (
            ("text_encoder", "qwen2.5-vl-7b"),
            ("transformer", "transformer-qwen-image"),
            ("vae", "vae-qwen-image"),
        ),
        1024,
        512,
    ),
    PublishedModel(
        "sd-1.5-controlnet",
        "stable-diffusion-controlnet",
        (_SD_TEXT, ("controlnet", "controlnet-sd15"), ("unet", "unet-sd15"), ("vae", "vae-sd")),
        512,
        77,
    ),
    PublishedModel(
        "sdxl-controlnet",
        "stable-diffusion-xl-controlnet",
        (*_XL, ("controlnet", "controlnet-sdxl"), ("unet", "unet-sdxl"), ("vae", "vae-sdxl")),
        1024,
        77,
    ),
)


def published_model(name: str) -> PublishedModel:
    """The model called ``name``; raises UsageError naming the nearest one."""
    for model in PUBLISHED:
        if model.name == name:
            return model
    raise UsageError(
        "model", f"there is no published model '{name}'", nearest(name, [one.name for one in PUBLISHED])
    )


def published_config(part: str) -> Config:
    """The config called ``part``, as in the model's own config.json."""
    text = (Path(__file__).parent / f"{part}.json").read_text(encoding="utf-8")
    config: Mapping[str, object] = json.loads(text)
    return config
