"""FAMILIES: every family there is. A new one is a file beside this one, and a line here."""

from __future__ import annotations

from latentc.errors import ModelError, nearest
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.family import Family

FAMILIES: tuple[Family, ...] = (STABLE_DIFFUSION, FLUX)


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
