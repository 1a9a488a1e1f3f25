"""Stable Diffusion XL: two CLIP encoders, a UNet told about sizes, as StableDiffusionXLPipeline runs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentc.errors import BundleError
from latentc.recipes.family import Component
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.pipeline import Embeddings, output_named
from latentc.runtime.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """See latentc.runtime.pipeline.Pipeline."""

    def encode_text(self, prompts: Sequence[str]) -> Embeddings:
        """Both encoders' states side by side, and the second one's pooled state, of ``prompts``."""
        tokens = self._tokenizer("tokenizer").encode(prompts)
        first = self.run(Component.TEXT_ENCODER, {"token_ids": tokens.ids})
        second_ids = self._tokenizer("tokenizer_2").encode(prompts).ids
        second = self.run(Component.TEXT_ENCODER_2, {"token_ids": second_ids})
        states = [
            output_named(Component.TEXT_ENCODER, first, "text_states"),
            output_named(Component.TEXT_ENCODER_2, second, "text_states"),
        ]
        pooled = output_named(Component.TEXT_ENCODER_2, second, "pooled_states")
        # both tokenizers have CLIP's words and one length, so they leave off the same end
        return Embeddings(np.concatenate(states, axis=-1), pooled, tokens.unread)

    def _constant_inputs(self, embeddings: Embeddings, latent: Float32Array) -> dict[str, Float32Array]:
        if embeddings.pooled_states is None:
            raise BundleError(
                "embeddings", "have no pooled prompt, which SDXL takes", "encode with SDXL's encoders"
            )
        height, width = (side * self.manifest.latent.downscale for side in latent.shape[2:])
        # the picture's own size, no crop, the size that is wanted
        told = np.array([height, width, 0, 0, height, width], dtype=np.float32)
        return {
            "text_states": embeddings.text_states,
            "pooled_states": embeddings.pooled_states,
            "time_ids": np.tile(told, (len(embeddings.text_states), 1)),
        }
