"""Stable Diffusion: a CLIP encoder and a guided UNet, run as diffusers' StableDiffusionPipeline runs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentc.errors import UsageError
from latentc.recipes.family import Component
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.pipeline import (
    Embeddings,
    Observer,
    Pipeline,
    Step,
    StepNoise,
    check_prediction,
    output_named,
)

# StableDiffusionPipeline refuses other sizes: three halvings inside the UNet and the decoder.
_SIZE_MULTIPLE = 8


class StableDiffusion(Pipeline):
    """See latentc.runtime.pipeline.Pipeline."""

    @property
    def size_multiple(self) -> int:
        """Height and width are multiples of this, in pixels."""
        return max(_SIZE_MULTIPLE, self.manifest.latent.downscale)

    @property
    def takes_negative_prompt(self) -> bool:
        """Guidance moves away from the negative prompt, which is empty unless told."""
        return True

    @property
    def takes_guidance(self) -> bool:
        """Whether a guidance scale changes anything."""
        return True

    def encode_text(self, prompts: Sequence[str]) -> Embeddings:
        """CLIP's last hidden states of ``prompts``."""
        tokens = self._tokenizer("tokenizer").encode(prompts)
        outputs = self.run(Component.TEXT_ENCODER, {"token_ids": tokens.ids})
        states = output_named(Component.TEXT_ENCODER, outputs, "text_states")
        return Embeddings(states, unread=tokens.unread)

    def denoise(
        self,
        initial_latent: Float32Array,
        embeddings: Embeddings,
        *,
        negative: Embeddings | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        step_noise: StepNoise | None = None,
        observer: Observer | None = None,
    ) -> Float32Array:
        """Run the UNet over the schedule; see Pipeline.denoise."""
        scale = self.manifest.sampling.guidance if guidance is None else guidance
        guided = self.wants_negative(scale)
        self._check_latent(initial_latent)
        scheduler = self._schedule(steps)
        constant = self._constant_inputs(embeddings, initial_latent)
        if guided:
            if negative is None:
                raise UsageError(
                    "negative",
                    f"is missing, and guidance is {scale:g}",
                    "pass the embeddings of an empty prompt",
                )
            negative_inputs = self._constant_inputs(negative, initial_latent)
            constant = {
                name: np.concatenate([negative_inputs[name], array]) for name, array in constant.items()
            }
        latent = initial_latent * np.float32(scheduler.init_noise_sigma)
        for index, timestep in enumerate(scheduler.timesteps):
            batch = np.concatenate([latent, latent]) if guided else latent
            inputs = {
                "latent": scheduler.scale_model_input(batch, index),
                "timestep": np.full(len(batch), timestep, dtype=np.float32),
                **constant,
            }
            outputs = self.run(Component.UNET, inputs)
            prediction = check_prediction(
                Component.UNET, index, output_named(Component.UNET, outputs, "prediction")
            )
            towards = _guide(prediction, scale) if guided else prediction
            latent = scheduler.step(towards, index, latent, self._noise(scheduler, step_noise, index))
            if observer is not None:
                observer(Step(index, float(timestep), inputs, prediction, latent))
        return latent

    def _constant_inputs(self, embeddings: Embeddings, latent: Float32Array) -> dict[str, Float32Array]:
        """What the UNet takes besides latent and time, the same in every step, for latents as ``latent``."""
        return {"text_states": embeddings.text_states}


def _guide(prediction: Float32Array, scale: float) -> Float32Array:
    """Away from the negative half and past the positive one (Ho and Salimans 2022)."""
    negative, positive = np.split(prediction, 2)
    guided: Float32Array = negative + np.float32(scale) * (positive - negative)
    return guided
