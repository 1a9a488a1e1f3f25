"""Train shapes-sd: Stable Diffusion 1.5's classes and block types, a thousandth of its size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from latentc.recipes.shapes.scene import scenes_for_training
from latentc.recipes.shapes.train.latents import LatentStore
from latentc.recipes.shapes.train.prompts import prompt_table, tokenize
from latentc.recipes.shapes.train.train_denoiser import BATCH, train_denoiser
from latentc.recipes.shapes.train.train_text import WIDTH
from latentc.recipes.shapes.train.train_vae import LATENT_CHANNELS

CAPTION_DROPOUT = 0.1


def make_unet() -> UNet2DConditionModel:
    """An untrained UNet with the block types of Stable Diffusion 1.5 on two levels."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(128, 128),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=32,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's kind of schedule with velocity prediction.

    It ends in more noise than the original (signal 0.016 instead of 0.068): a latent of
    8x8 pixels shows its background's mean through the original's last step.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


class Denoiser(nn.Module):
    """The two parts that are trained together; the text tower already knows the grammar."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text = text

    def forward(self, noisy: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Velocity [B, C, h, w] for latents ``noisy`` at ``times`` [B] under ``tokens`` [B, T]."""
        states = self.text(tokens).last_hidden_state
        velocity: torch.Tensor = self.unet(noisy, times, states).sample
        return velocity


@sdpa_kernel(SDPBackend.MATH)  # the flash kernel's backward pass is slow on a CPU
def train_sd(
    denoiser: Denoiser,
    tokenizer: PreTrainedTokenizerBase,
    store: LatentStore,
    state_file: Path,
    steps: int,
    seed: int,
    peak_rate: float = 1e-3,
) -> None:
    """Train in place, going on from ``state_file`` if it is there; ends with averaged weights."""
    table = prompt_table(tokenizer, scenes_for_training())
    empty = tokenize(tokenizer, [""])[0]
    alphas = make_scheduler().alphas_cumprod

    def loss_of_batch(rng: np.random.Generator) -> torch.Tensor:
        latents, rows = store.draw(BATCH, rng)
        tokens = table.draw(rows, rng)
        tokens[torch.from_numpy(rng.random(BATCH) < CAPTION_DROPOUT)] = empty
        times = torch.from_numpy(rng.integers(0, len(alphas), BATCH))
        kept = alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        with torch.autocast("cpu", torch.bfloat16):
            guess = denoiser(noisy, times, tokens)
        loss: torch.Tensor = ((guess.float() - velocity) ** 2).mean()
        return loss

    train_denoiser("sd", denoiser, [denoiser.text], loss_of_batch, state_file, steps, seed, peak_rate)
