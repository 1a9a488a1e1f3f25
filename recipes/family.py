"""Families: what a pipeline is made of, as data. One constant a family; FAMILIES is the catalogue.

Axis letters are those of the whole project: B batch, C latent channels, H W pixels, h w latent
pixels, T text tokens, S image tokens (packed latents), D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentc.errors import ModelError, nearest
from latentc.recipes.choice import Choice


class Component(Choice):
    """A part of a pipeline that becomes one graph; the value is its folder in a bundle."""

    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
    UNET = "unet"
    TRANSFORMER = "transformer"
    VAE_ENCODER = "vae_encoder"
    VAE_DECODER = "vae_decoder"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a component: name, numpy dtype name, and one axis a dimension.

    An axis that is a string is dynamic; a string ending in ``*`` is taken from the model's config
    (for example ``C*``), so it is fixed for one checkpoint.
    """

    name: str
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class ComponentSpec:
    """One component: where its weights lie in a diffusers folder and what it takes and gives."""

    component: Component
    folder: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Family:
    """A kind of pipeline: its diffusers class, its components and which of them denoises."""

    name: str
    pipeline_class: str
    denoiser: Component
    components: tuple[ComponentSpec, ...]

    def spec(self, component: Component) -> ComponentSpec:
        """The spec of ``component``; raises ModelError when this family has none."""
        for spec in self.components:
            if spec.component is component:
                return spec
        offered = [str(spec.component) for spec in self.components]
        raise ModelError(self.name, f"has no component '{component}'", nearest(str(component), offered))


_VAE = (
    ComponentSpec(
        Component.VAE_ENCODER,
        "vae",
        (TensorSpec("image", "float32", ("B", "C_image*", "H", "W")),),
        (TensorSpec("latent", "float32", ("B", "C*", "h", "w")),),  # the mean of the distribution
    ),
    ComponentSpec(
        Component.VAE_DECODER,
        "vae",
        (TensorSpec("latent", "float32", ("B", "C*", "h", "w")),),
        (TensorSpec("image", "float32", ("B", "C_image*", "H", "W")),),
    ),
)

STABLE_DIFFUSION = Family(
    "stable-diffusion",
    "StableDiffusionPipeline",
    Component.UNET,
    (
        ComponentSpec(
            Component.TEXT_ENCODER,
            "text_encoder",
            (TensorSpec("token_ids", "int64", ("B", "T")),),
            (TensorSpec("text_states", "float32", ("B", "T", "D*")),),  # last_hidden_state
        ),
        ComponentSpec(
            Component.UNET,
            "unet",
            (
                TensorSpec("latent", "float32", ("B", "C*", "h", "w")),
                TensorSpec("timestep", "float32", ("B",)),  # 0…1000, as diffusers' UNet takes it
                TensorSpec("text_states", "float32", ("B", "T", "D*")),
            ),
            (TensorSpec("prediction", "float32", ("B", "C*", "h", "w")),),
        ),
        *_VAE,
    ),
)

FLUX = Family(
    "flux",
    "FluxPipeline",
    Component.TRANSFORMER,
    (
        ComponentSpec(
            Component.TEXT_ENCODER,
            "text_encoder",
            (TensorSpec("token_ids", "int64", ("B", "T")),),
            (TensorSpec("pooled_states", "float32", ("B", "D*")),),  # CLIP's pooler_output
        ),
        ComponentSpec(
            Component.TEXT_ENCODER_2,
            "text_encoder_2",
            (TensorSpec("token_ids", "int64", ("B", "T")),),
            (TensorSpec("text_states", "float32", ("B", "T", "D*")),),  # T5's last_hidden_state
        ),
        ComponentSpec(
            Component.TRANSFORMER,
            "transformer",
            (
                TensorSpec("latent", "float32", ("B", "S", "C_packed*")),  # 2×2 latent pixels a token
                TensorSpec("timestep", "float32", ("B",)),  # 0…1: diffusers' t / 1000
                TensorSpec("text_states", "float32", ("B", "T", "D*")),
                TensorSpec("pooled_states", "float32", ("B", "D_pooled*")),
                TensorSpec("image_ids", "float32", ("S", "3*")),
                TensorSpec("text_ids", "float32", ("T", "3*")),
                # a checkpoint with guidance_embeds takes one more input: ("guidance", "float32", ("B",))
            ),
            (TensorSpec("prediction", "float32", ("B", "S", "C_packed*")),),
        ),
        *_VAE,
    ),
)

FAMILIES: tuple[Family, ...] = (STABLE_DIFFUSION, FLUX)


def family_of_pipeline(class_name: str) -> Family:
    """The family whose diffusers pipeline is ``class_name``; raises ModelError for any other."""
    for family in FAMILIES:
        if family.pipeline_class == class_name:
            return family
    raise ModelError(
        "model_index.json",
        f"pipeline class '{class_name}' is of no family that latentc knows",
        nearest(class_name, [family.pipeline_class for family in FAMILIES]),
    )


def family_named(name: str) -> Family:
    """The family called ``name``; raises ModelError naming the nearest one."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ModelError(
        "family", f"there is no family '{name}'", nearest(name, [family.name for family in FAMILIES])
    )
