"""FAMILIES: every family there is. A new one is a file beside this one, and a line here."""

from __future__ import annotations

from latentc.errors import ModelError, nearest
from latentc.recipes.families.controlnet import CONTROLNET, CONTROLNET_XL
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.flux2 import FLUX_2
from latentc.recipes.families.pixart_sigma import PIXART_SIGMA
from latentc.recipes.families.qwen_image import QWEN_IMAGE
from latentc.recipes.families.sana import SANA
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from latentc.recipes.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from latentc.recipes.families.z_image import Z_IMAGE
from latentc.recipes.family import Family

FAMILIES: tuple[Family, ...] = (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    STABLE_DIFFUSION_3,
    PIXART_SIGMA,
    SANA,
    FLUX,
    FLUX_2,
    Z_IMAGE,
    QWEN_IMAGE,
    CONTROLNET,
    CONTROLNET_XL,
)


UNKNOWN = "unknown"
"""Stands for the family of a denoiser that none describes."""


def family_of_pipeline(class_name: str) -> Family:
    """The family whose diffusers pipeline is ``class_name``; raises ModelError for any other."""
    for family in FAMILIES:
        if class_name in (family.pipeline_class, *family.also):
            return family
    raise ModelError(
        "model_index.json",
        f"pipeline class '{class_name}' is of no family that latentc knows",
        nearest(class_name, [name for family in FAMILIES for name in (family.pipeline_class, *family.also)]),
    )


def family_named(name: str) -> Family:
    """The family called ``name``; raises ModelError naming the nearest one."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ModelError(
        "family", f"there is no family '{name}'", nearest(name, [family.name for family in FAMILIES])
    )
