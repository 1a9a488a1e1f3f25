"""Train shapes-flux: FLUX's double and single blocks on 16 picture tokens, by flow matching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

from latentc.recipes.shapes.scene import scenes_for_training
from latentc.recipes.shapes.train.latents import LatentStore
from latentc.recipes.shapes.train.prompts import prompt_table
from latentc.recipes.shapes.train.train_denoiser import BATCH, train_denoiser
from latentc.recipes.shapes.train.train_text import WIDTH
from latentc.recipes.shapes.train.train_vae import LATENT_CHANNELS
from latentc.recipes.shapes.train.vocabulary import MAX_TOKENS

PACKED_SIDE = 4
"""Height and width of the picture in tokens; each token packs 2x2 latent pixels."""


def make_transformer() -> FluxTransformer2DModel:
    """An untrained transformer with FLUX's two kinds of blocks and its rotary positions."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=64,
        num_attention_heads=3,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(16, 24, 24),
    )


def make_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The straight schedule of FLUX.1-schnell."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=False)


class FlowDenoiser(nn.Module):
    """The three parts that are trained together; the text towers already know the grammar."""

    def __init__(self, transformer: FluxTransformer2DModel, clip: CLIPTextModel, t5: T5EncoderModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.clip = clip
        self.t5 = t5
        self.register_buffer("text_places", torch.zeros(MAX_TOKENS, 3), persistent=False)
        self.register_buffer("picture_places", picture_places(), persistent=False)

    def forward(
        self, noisy: torch.Tensor, times: torch.Tensor, clip_tokens: torch.Tensor, t5_tokens: torch.Tensor
    ) -> torch.Tensor:
        """Flow [B, 16, 4C] for packed latents ``noisy`` at ``times`` [B] in (0, 1)."""
        pooled = self.clip(clip_tokens).pooler_output
        flow: torch.Tensor = self.transformer(
            hidden_states=noisy,
            encoder_hidden_states=self.t5(t5_tokens).last_hidden_state,
            pooled_projections=pooled,
            timestep=times,
            img_ids=self.picture_places,
            txt_ids=self.text_places,
            return_dict=False,
        )[0]
        return flow


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] to [B, h/2 * w/2, 4C], in the order ``FluxPipeline`` uses."""
    count, channels, height, width = latents.shape
    cells = latents.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count, height // 2 * (width // 2), channels * 4)


def picture_places() -> torch.Tensor:
    """Row and column of each picture token, as ``FluxPipeline`` numbers them: [16, 3] float32."""
    places = torch.zeros(PACKED_SIDE, PACKED_SIDE, 3)
    places[..., 1] = torch.arange(PACKED_SIDE)[:, None]
    places[..., 2] = torch.arange(PACKED_SIDE)[None, :]
    return places.reshape(-1, 3)


@sdpa_kernel(SDPBackend.MATH)  # the flash kernel's backward pass is slow on a CPU
def train_flux(
    denoiser: FlowDenoiser,
    clip_tokenizer: PreTrainedTokenizerBase,
    t5_tokenizer: PreTrainedTokenizerBase,
    store: LatentStore,
    state_file: Path,
    steps: int,
    seed: int,
    peak_rate: float = 1e-3,
) -> None:
    """Train in place, going on from ``state_file`` if it is there; ends with averaged weights."""
    scenes = scenes_for_training()
    clip_table, t5_table = prompt_table(clip_tokenizer, scenes), prompt_table(t5_tokenizer, scenes)

    def loss_of_batch(rng: np.random.Generator) -> torch.Tensor:
        latents, rows = store.draw(BATCH, rng)
        clean = pack(latents)
        noise = torch.randn_like(clean)
        times = draw_flow_times(BATCH, rng)
        share = times.view(-1, 1, 1)
        noisy = (1 - share) * clean + share * noise
        clip_tokens, t5_tokens = clip_table.draw(rows, rng), t5_table.draw(rows, rng)
        with torch.autocast("cpu", torch.bfloat16):
            guess = denoiser(noisy, times, clip_tokens, t5_tokens)
        loss: torch.Tensor = ((guess.float() - (noise - clean)) ** 2).mean()
        return loss

    towers = [denoiser.t5, denoiser.clip]
    train_denoiser("flux", denoiser, towers, loss_of_batch, state_file, steps, seed, peak_rate)


def draw_flow_times(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Noise shares [B] float32 in (0, 1): half of them even, half logit-normal."""
    leaning = 1 / (1 + np.exp(-rng.standard_normal(count)))
    mixed = np.where(rng.random(count) < 0.5, rng.random(count), leaning)
    return torch.from_numpy(mixed.astype(np.float32).clip(1e-4, 1.0))
