"""Torch modules as sessions: a diffusers pipeline run by our loop, so that only the loop is under test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from latentc.recipes.family import Component
from latentc.runtime.manifest import (
    ComponentEntry,
    LatentEntry,
    Manifest,
    SamplingEntry,
    SchedulerEntry,
    TensorEntry,
    TokenizerEntry,
)
from latentc.runtime.session import Array
from latentc.runtime.tokenize import PromptTokenizer

Call = Callable[[dict[str, torch.Tensor]], torch.Tensor | tuple[torch.Tensor, ...]]
Signature = tuple[tuple[str, ...], tuple[str, ...], Call]
"""Names of inputs, names of outputs, and how the module is called."""

FAMILY_OF = {
    "StableDiffusionPipeline": STABLE_DIFFUSION,
    "StableDiffusionXLPipeline": STABLE_DIFFUSION_XL,
    "FluxPipeline": FLUX,
}


@dataclass
class TorchSession:
    """A module behind the Session protocol, which also counts how it is used."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    call: Call
    calls: list[dict[str, Array]] = field(default_factory=list)
    closed: bool = False

    @property
    def input_names(self) -> tuple[str, ...]:
        return self.inputs

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        assert set(inputs) == set(self.inputs)
        assert not self.closed
        assert {array.dtype.name for array in inputs.values()} <= {"float32", "int64"}
        self.calls.append(dict(inputs))
        with torch.no_grad():
            result = self.call({name: torch.from_numpy(array.copy()) for name, array in inputs.items()})
        results = (result,) if isinstance(result, torch.Tensor) else result
        return {name: tensor.numpy() for name, tensor in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def component_calls(pipeline: Any) -> dict[Component, Signature]:
    """How each component of diffusers' ``pipeline`` is called by the names of latentc's families."""
    vae_decoder: Signature = (
        ("latent",),
        ("image",),
        lambda x: pipeline.vae.decode(x["latent"]).sample,
    )
    if type(pipeline).__name__ == "StableDiffusionPipeline":
        return {
            Component.TEXT_ENCODER: (
                ("token_ids",),
                ("text_states",),
                lambda x: pipeline.text_encoder(x["token_ids"])[0],
            ),
            Component.UNET: (
                ("latent", "timestep", "text_states"),
                ("prediction",),
                lambda x: pipeline.unet(x["latent"], x["timestep"], x["text_states"]).sample,
            ),
            Component.VAE_DECODER: vae_decoder,
        }
    if type(pipeline).__name__ == "StableDiffusionXLPipeline":
        return _calls_of_xl(pipeline, vae_decoder)
    guided = ("guidance",) if pipeline.transformer.config.guidance_embeds else ()
    return {
        Component.TEXT_ENCODER: (
            ("token_ids",),
            ("pooled_states",),
            lambda x: pipeline.text_encoder(x["token_ids"]).pooler_output,
        ),
        Component.TEXT_ENCODER_2: (
            ("token_ids",),
            ("text_states",),
            lambda x: pipeline.text_encoder_2(x["token_ids"])[0],
        ),
        Component.TRANSFORMER: (
            ("latent", "timestep", "text_states", "pooled_states", "image_ids", "text_ids", *guided),
            ("prediction",),
            lambda x: (
                pipeline.transformer(
                    hidden_states=x["latent"],
                    timestep=x["timestep"],
                    guidance=x.get("guidance"),
                    pooled_projections=x["pooled_states"],
                    encoder_hidden_states=x["text_states"],
                    img_ids=x["image_ids"],
                    txt_ids=x["text_ids"],
                ).sample
            ),
        ),
        Component.VAE_DECODER: vae_decoder,
    }


def _calls_of_xl(pipeline: Any, vae_decoder: Signature) -> dict[Component, Signature]:
    def second(x: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        result = pipeline.text_encoder_2(x["token_ids"], output_hidden_states=True)
        return result.hidden_states[-2], result.text_embeds

    return {
        Component.TEXT_ENCODER: (
            ("token_ids",),
            ("text_states",),
            lambda x: pipeline.text_encoder(x["token_ids"], output_hidden_states=True).hidden_states[-2],
        ),
        Component.TEXT_ENCODER_2: (("token_ids",), ("text_states", "pooled_states"), second),
        Component.UNET: (
            ("latent", "timestep", "text_states", "pooled_states", "time_ids"),
            ("prediction",),
            lambda x: (
                pipeline.unet(
                    x["latent"],
                    x["timestep"],
                    x["text_states"],
                    added_cond_kwargs={"text_embeds": x["pooled_states"], "time_ids": x["time_ids"]},
                ).sample
            ),
        ),
        Component.VAE_DECODER: vae_decoder,
    }


class TorchComponents:
    """Opens the components of a pipeline as sessions, the tokenizers as ours, and remembers the order."""

    def __init__(self, pipeline: Any, folder: Path, max_lengths: Mapping[str, int]) -> None:
        self.calls = component_calls(pipeline)
        self.opened: list[tuple[Component, TorchSession]] = []
        self._folder = folder
        self._max_lengths = max_lengths

    def open_session(self, component: Component) -> TorchSession:
        session = TorchSession(*self.calls[component])
        self.opened.append((component, session))
        return session

    def open_tokenizer(self, name: str) -> PromptTokenizer:
        return PromptTokenizer(
            name, (self._folder / name / "tokenizer.json").read_bytes(), self.tokenizer_entry(name)
        )

    def tokenizer_entry(self, name: str) -> TokenizerEntry:
        config = json.loads((self._folder / name / "tokenizer.json").read_text())
        settings = json.loads((self._folder / name / "tokenizer_config.json").read_text())
        tokens = {token["content"]: token["id"] for token in config["added_tokens"]}
        vocabulary = config["model"]["vocab"]
        if isinstance(vocabulary, dict):
            tokens.update(vocabulary)
        else:
            tokens.update({piece: index for index, (piece, _) in enumerate(vocabulary)})
        return TokenizerEntry(
            f"{name}/tokenizer.json", self._max_lengths[name], tokens[settings["pad_token"]]
        )


def manifest_of(pipeline: Any, components: TorchComponents, scheduler: SchedulerEntry) -> Manifest:
    """The manifest that a bundle of diffusers' ``pipeline`` would have."""
    family = FAMILY_OF[type(pipeline).__name__]
    return Manifest(
        name="tiny",
        target="onnx",
        family=family.name,
        runtime="onnxruntime",
        components={
            str(component): ComponentEntry(
                f"{component}/model.onnx",
                "",
                tuple(TensorEntry(name, "float32", ("B",)) for name in inputs),
                tuple(TensorEntry(name, "float32", ("B",)) for name in outputs),
                0,
                0,
                0,
                0,
            )
            for component, (inputs, outputs, _) in components.calls.items()
        },
        tokenizers={
            spec.tokenizer: components.tokenizer_entry(spec.tokenizer) for spec in family.text_encoders
        },
        scheduler=scheduler,
        sampling=SamplingEntry(4, 3.5, 64, 64),
        latent=LatentEntry(
            pipeline.vae.config.latent_channels,
            2 ** (len(pipeline.vae.config.block_out_channels) - 1),
            pipeline.vae.config.scaling_factor,
            pipeline.vae.config.shift_factor or 0.0,
        ),
        recipe={},
        toolchain={},
        simulated=(),
        zeroes_empty_negative=bool(pipeline.config.get("force_zeros_for_empty_prompt", False)),
    )


def unit_noise(seed: int, shape: tuple[int, ...]) -> np.typing.NDArray[np.float32]:
    """Noise for both sides, from torch's generator as diffusers would draw it."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()
