"""Flux: CLIP's pooled prompt and T5's states, a transformer over packed latents, as FluxPipeline runs it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentc.errors import BundleError
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

PATCH = 2
"""Latent pixels on a side of one token."""

# Flux's transformer is trained on time 0…1; FluxPipeline divides by this whatever the scheduler says.
_TIME_SCALE = np.float32(1000.0)


def pack(latent: Float32Array) -> Float32Array:
    """Fold 2×2 latent pixels into one token.

    Args:
        latent: [B, C, h, w], h and w even.

    Returns:
        [B, S, 4C] with S = h/2 · w/2, tokens row by row; channels slowest within a token.
    """
    B, C, h, w = latent.shape
    patches = latent.reshape(B, C, h // PATCH, PATCH, w // PATCH, PATCH)
    return patches.transpose(0, 2, 4, 1, 3, 5).reshape(B, (h // PATCH) * (w // PATCH), C * PATCH * PATCH)


def unpack(tokens: Float32Array, height: int, width: int) -> Float32Array:
    """Undo ``pack``: [B, S, 4C] to [B, C, height, width], both in latent pixels."""
    B, _, packed = tokens.shape
    C = packed // (PATCH * PATCH)
    patches = tokens.reshape(B, height // PATCH, width // PATCH, C, PATCH, PATCH)
    return patches.transpose(0, 3, 1, 4, 2, 5).reshape(B, C, height, width)


def image_ids(height: int, width: int) -> Float32Array:
    """Where each token lies: [S, 3] float32 of (0, row, column), for latent pixels ``height`` × ``width``."""
    rows, columns = height // PATCH, width // PATCH
    ids = np.zeros((rows, columns, 3), dtype=np.float32)
    ids[..., 1] = np.arange(rows, dtype=np.float32)[:, None]
    ids[..., 2] = np.arange(columns, dtype=np.float32)[None, :]
    return ids.reshape(rows * columns, 3)


class Flux(Pipeline):
    """See latentc.runtime.pipeline.Pipeline."""

    @property
    def size_multiple(self) -> int:
        """Height and width are multiples of this, in pixels."""
        return PATCH * self.manifest.latent.downscale

    @property
    def takes_negative_prompt(self) -> bool:
        """Flux is guided by an input of its transformer, or not at all."""
        return False

    @property
    def takes_guidance(self) -> bool:
        """Whether the transformer has a guidance input; a distilled one such as schnell has none."""
        entry = self.manifest.components[str(Component.TRANSFORMER)]
        return any(tensor.name == "guidance" for tensor in entry.inputs)

    def encode_text(self, prompts: Sequence[str]) -> Embeddings:
        """CLIP's pooled state and T5's last hidden states of ``prompts``."""
        clip = self._tokenizer("tokenizer").encode(prompts)
        pooled = self.run(Component.TEXT_ENCODER, {"token_ids": clip.ids})
        t5 = self._tokenizer("tokenizer_2").encode(prompts)
        states = self.run(Component.TEXT_ENCODER_2, {"token_ids": t5.ids})
        return Embeddings(
            output_named(Component.TEXT_ENCODER_2, states, "text_states"),
            output_named(Component.TEXT_ENCODER, pooled, "pooled_states"),
            t5.unread,
        )

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
        """Run the transformer over the schedule; see Pipeline.denoise. ``negative`` has no use here."""
        self._check_latent(initial_latent)
        if embeddings.pooled_states is None:
            raise BundleError(
                "embeddings", "have no pooled prompt, which Flux takes", "encode with Flux's encoders"
            )
        scale = self.manifest.sampling.guidance if guidance is None else guidance
        B, _, height, width = initial_latent.shape
        latent = pack(initial_latent)
        scheduler = self._schedule(steps, image_tokens=latent.shape[1])
        constant = {
            "text_states": embeddings.text_states,
            "pooled_states": embeddings.pooled_states,
            "image_ids": image_ids(height, width),
            "text_ids": np.zeros((embeddings.text_states.shape[1], 3), dtype=np.float32),
        }
        if self.takes_guidance:
            constant["guidance"] = np.full(B, scale, dtype=np.float32)
        for index, timestep in enumerate(scheduler.timesteps):
            inputs = {
                **constant,
                "latent": scheduler.scale_model_input(latent, index),
                "timestep": np.full(B, timestep, dtype=np.float32) / _TIME_SCALE,
            }
            outputs = self.run(Component.TRANSFORMER, inputs)
            prediction = check_prediction(
                Component.TRANSFORMER, index, output_named(Component.TRANSFORMER, outputs, "prediction")
            )
            latent = scheduler.step(prediction, index, latent, None)
            if observer is not None:
                observer(Step(index, float(timestep), inputs, prediction, unpack(latent, height, width)))
        return unpack(latent, height, width)
