"""Flat modules: one component of a pipeline as a function of plain tensors, on the meta device.

A flat module takes and gives exactly the tensors of latentc.recipes.family, in that order, and holds the
diffusers or transformers module under ``original``, so a weight's name is that module's own after the prefix.
Only torch code lives here; import this file inside functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from latentc.errors import ModelError, nearest
from latentc.recipes.family import FLUX, STABLE_DIFFUSION, Component, Family, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from latentc.runtime.manifest import Json

PREFIX = "original."
"""What stands before a weight's own name in a flat module."""

GUIDANCE = TensorSpec("guidance", "float32", ("B",))
"""One more input of FLUX transformers that were distilled with guidance."""

COMPONENT_CLASSES: dict[str, str] = {
    "UNet2DConditionModel": "diffusers",
    "FluxTransformer2DModel": "diffusers",
    "AutoencoderKL": "diffusers",
    "CLIPTextModel": "transformers",
    "T5EncoderModel": "transformers",
}
"""Classes that can be exported, each with the library it lives in; no other class is ever made."""


class FlatTextEncoder(nn.Module):
    """``token_ids`` → one field of the text encoder's result."""

    def __init__(self, original: nn.Module, result: str) -> None:
        super().__init__()
        self.original = original
        self.result = result

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Encode the text."""
        states: torch.Tensor = getattr(self.original(token_ids), self.result)
        return states


class FlatUnet(nn.Module):
    """``latent, timestep, text_states`` → ``prediction``."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original

    def forward(
        self, latent: torch.Tensor, timestep: torch.Tensor, text_states: torch.Tensor
    ) -> torch.Tensor:
        """Denoise once."""
        prediction: torch.Tensor = self.original(latent, timestep, text_states, return_dict=False)[0]
        return prediction


class RotaryTable(nn.Module):
    """Position ids [S, axes] → cosines and sines [S, D] in float32, as diffusers' FluxPosEmbed gives them.

    diffusers computes the angles in float64, which TensorRT does not have. Here only the frequencies are,
    as constants: for ids below 1000 the angles differ by less than 1e-4.
    """

    frequencies: torch.Tensor

    def __init__(self, theta: float, axes: Sequence[int]) -> None:
        super().__init__()
        table = torch.zeros((len(axes), sum(axes)), dtype=torch.float64, device="cpu")
        start = 0
        for axis, width in enumerate(axes):
            steps = torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width
            table[axis, start : start + width] = (theta**-steps).repeat_interleave(2)
            start += width
        self.register_buffer("frequencies", table.float(), persistent=False)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of every angle, each twice in a row."""
        angles = (ids[:, :, None] * self.frequencies).sum(1)
        return angles.cos(), angles.sin()


class FlatFluxTransformer(nn.Module):
    """``latent, timestep, text_states, pooled_states, image_ids, text_ids[, guidance]`` → ``prediction``."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original

    def forward(
        self,
        latent: torch.Tensor,
        timestep: torch.Tensor,
        text_states: torch.Tensor,
        pooled_states: torch.Tensor,
        image_ids: torch.Tensor,
        text_ids: torch.Tensor,
        guidance: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Denoise once."""
        prediction: torch.Tensor = self.original(
            hidden_states=latent,
            timestep=timestep,
            encoder_hidden_states=text_states,
            pooled_projections=pooled_states,
            img_ids=image_ids,
            txt_ids=text_ids,
            guidance=guidance,
            return_dict=False,
        )[0]
        return prediction


class FlatVaeEncoder(nn.Module):
    """``image`` → ``latent``, the mean of the distribution (before scaling_factor)."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original: Any = original

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encode pictures, -1…1."""
        moments: torch.Tensor = self.original.encoder(image)
        if self.original.quant_conv is not None:
            moments = self.original.quant_conv(moments)
        return moments[:, : moments.shape[1] // 2]


class FlatVaeDecoder(nn.Module):
    """``latent`` (after division by scaling_factor) → ``image``."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original: Any = original

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode to pictures, -1…1."""
        if self.original.post_quant_conv is not None:
            latent = self.original.post_quant_conv(latent)
        image: torch.Tensor = self.original.decoder(latent)
        return image


@dataclass(frozen=True)
class FlatComponent:
    """A flat module with what is needed to trace it.

    Args:
        module: in evaluation mode.
        inputs: the tensors it takes, in order.
        outputs: the tensors it gives, in order.
        examples: one small tensor an input; every dynamic axis has its own size of 2 or more.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    examples: tuple[torch.Tensor, ...]


def module_on_meta(class_name: str, config: Mapping[str, Json]) -> nn.Module:
    """Make the module from its architecture alone: weights without storage, buffers with their values.

    Raises:
        ModelError: the class is not one that latentc exports, or refuses the config.
    """
    if class_name not in COMPONENT_CLASSES:
        raise ModelError(
            class_name, "is no class that latentc exports", nearest(class_name, COMPONENT_CLASSES)
        )
    module = module_without_values(class_name, config)
    if any(True for _ in module.buffers()):
        # Buffers (position ids) are computed, not stored in the checkpoint: they need their values. Only
        # text encoders have some; making their weights for real and dropping them at once is affordable.
        from accelerate import init_empty_weights  # type: ignore[import-untyped] # ships no types

        with init_empty_weights(include_buffers=False):
            module = _module(class_name, config)
    return module.eval().requires_grad_(False)


def module_without_values(class_name: str, config: Mapping[str, Json]) -> nn.Module:
    """Make the module with weights and buffers that have shapes alone: enough to say what it computes.

    Raises:
        ModelError: the class refuses the config.
    """
    with torch.device("meta"):
        return _module(class_name, config).eval().requires_grad_(False)


def _module(class_name: str, config: Mapping[str, Json]) -> nn.Module:
    import diffusers
    import transformers

    values = dict(config)
    try:
        if COMPONENT_CLASSES[class_name] == "diffusers":
            model: nn.Module = getattr(diffusers, class_name).from_config(values)
            return model
        model_class = getattr(transformers, class_name)
        typed = model_class.config_class.from_dict(values)
        # Eager attention is plain matrix products and a softmax, with the mask added in the open.
        typed._attn_implementation = "eager"
        encoder: nn.Module = model_class(typed)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{class_name}: config.json",
            f"the class refuses it: {error}",
            "compare it with the config of a model that diffusers loads",
        ) from error
    return encoder


def flat_component(family: Family, component: Component, module: nn.Module) -> FlatComponent:
    """Wrap ``module`` so that it takes and gives the tensors of ``family``'s spec of ``component``.

    Args:
        family: what kind of pipeline it is.
        component: which part.
        module: of a class in COMPONENT_CLASSES; FLUX's has its position embedding replaced.

    Raises:
        ModelError: the module asks for inputs that the family does not have.
    """
    spec = family.spec(component)
    inputs = spec.inputs
    original: Any = module
    config: Any = original.config
    flat: nn.Module
    if component in (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2):
        pooled = spec.outputs[0].name == "pooled_states"
        flat = FlatTextEncoder(module, "pooler_output" if pooled else "last_hidden_state")
        sizes = {}
    elif component is Component.UNET and family is STABLE_DIFFUSION:
        refuse_unet_extras(config)
        flat = FlatUnet(module)
        # Downsampling halves h and w between blocks; the smallest still has more than one pixel.
        factor = 2 ** (len(config.block_out_channels) - 1)
        sizes = {"h": 2 * factor, "w": 3 * factor, "C*": config.in_channels, "D*": config.cross_attention_dim}
    elif component is Component.TRANSFORMER and family is FLUX:
        original.pos_embed = RotaryTable(original.pos_embed.theta, original.pos_embed.axes_dim)
        flat = FlatFluxTransformer(module)
        inputs = (*inputs, GUIDANCE) if config.guidance_embeds else inputs
        sizes = {
            "C_packed*": config.in_channels,
            "D*": config.joint_attention_dim,
            "D_pooled*": config.pooled_projection_dim,
            "3*": len(config.axes_dims_rope),
        }
    else:
        factor = 2 ** (len(config.block_out_channels) - 1)
        sizes = {"H": 4 * factor, "W": 6 * factor, "h": 4, "w": 6}
        sizes |= {"C*": config.latent_channels, "C_image*": config.in_channels}
        flat = FlatVaeEncoder(module) if component is Component.VAE_ENCODER else FlatVaeDecoder(module)
    sizes = {"B": 2, "T": 7, "S": 12} | sizes
    examples = tuple(
        torch.zeros([sizes[axis] for axis in tensor.axes], dtype=getattr(torch, tensor.dtype))
        for tensor in inputs
    )
    return FlatComponent(flat.eval(), inputs, spec.outputs, examples)


def refuse_unet_extras(config: Any) -> None:  # noqa: ANN401 # diffusers is untyped
    """Raise ModelError for UNets that take more than latent, timestep and text states."""
    for key in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim"):
        if config.get(key) is not None:
            raise ModelError(
                "unet/config.json",
                f"{key} is '{config[key]}', which asks for inputs that Stable Diffusion 1 and 2 do not have",
                "use a checkpoint of Stable Diffusion 1 or 2, or fuse its LCM-LoRA instead",
            )


def on_meta(flat: FlatComponent) -> tuple[FlatComponent, dict[str, torch.Tensor]]:
    """Move everything to the meta device and keep the buffers' values.

    Returns:
        The component without any storage, and the values of its buffers by name in the flat module.
    """
    values = {name: buffer.clone() for name, buffer in flat.module.named_buffers()}
    module = flat.module.to("meta")
    examples = tuple(example.to("meta") for example in flat.examples)
    return replace(flat, module=module, examples=examples), values
