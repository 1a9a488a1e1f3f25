"""ControlNet for Stable Diffusion 1, 2 and XL: a copy of the UNet's first half; the UNet adds its results."""

from __future__ import annotations

from dataclasses import replace

from latentc.recipes.config import Config, count, number, numbers
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.families.stable_diffusion_xl import STABLE_DIFFUSION_XL, UNET_XL
from latentc.recipes.families.unet import UNET, smallest_step
from latentc.recipes.family import Component, ComponentSpec, Family, TensorSpec


def _residuals(config: Config, down: str, middle: str) -> tuple[TensorSpec, ...]:
    """One tensor for each skip connection of the UNet, which lie at ``down``, and that in its middle."""
    widths, layers = numbers(config, "block_out_channels"), number(config, "layers_per_block")
    shapes = [(widths[0], 1)]
    for level, width in enumerate(widths):
        shapes += [(width, 2**level)] * layers
        if level + 1 < len(widths):
            shapes.append((width, 2 ** (level + 1)))
    shapes.append((widths[-1], 2 ** (len(widths) - 1)))
    places = [*(f"{down}.{index}" for index in range(len(shapes) - 1)), middle]
    names = [*(f"residual_{index}" for index in range(len(shapes) - 1)), "residual_middle"]
    return tuple(
        TensorSpec(name, "float32", ("B", f"{width}*", _part("h", share), _part("w", share)), place)
        for name, place, (width, share) in zip(names, places, shapes, strict=True)
    )


def _part(axis: str, share: int) -> str:
    return axis if share == 1 else f"{axis}/{share}"


def _given(config: Config) -> tuple[TensorSpec, ...]:
    return _residuals(config, "0", "1")


def _taken(config: Config) -> tuple[TensorSpec, ...]:
    return _residuals(config, "down_block_additional_residuals", "mid_block_additional_residual")


def _pixel_step(config: Config) -> int:
    """The picture is brought to the latent's size by convolutions that halve it."""
    return int(2 ** (count(config, "conditioning_embedding_out_channels") - 1)) * smallest_step(config)


def _controlnet(unet: ComponentSpec) -> ComponentSpec:
    picture = TensorSpec("control_image", "float32", ("B", "C_image*", "H", "W"), "controlnet_cond")  # 0…1
    return replace(
        unet,
        component=Component.CONTROLNET,
        folder="controlnet",
        class_name="ControlNetModel",
        inputs=(*unet.inputs, picture),
        outputs=(),
        sizes=(*unet.sizes, ("C_image*", "conditioning_channels"), ("pixel_step", _pixel_step)),
        more_outputs=_given,
        absent=("class_embed_type", "encoder_hid_dim_type"),
    )


def _with_controlnet(family: Family, pipeline_class: str, unet: ComponentSpec) -> Family:
    """``family`` with a ControlNet before its UNet, which takes the residuals."""
    components = [spec for spec in family.components if spec.component is not Component.UNET]
    place = len(family.text_encoders)
    controlled = (_controlnet(unet), replace(unet, more_inputs=_taken))
    return replace(
        family,
        name=f"{family.name}-controlnet",
        pipeline_class=pipeline_class,
        components=(*components[:place], *controlled, *components[place:]),
        is_drawn=False,
    )


CONTROLNET = _with_controlnet(STABLE_DIFFUSION, "StableDiffusionControlNetPipeline", UNET)
CONTROLNET_XL = _with_controlnet(STABLE_DIFFUSION_XL, "StableDiffusionXLControlNetPipeline", UNET_XL)
