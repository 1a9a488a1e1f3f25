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
from latentc.recipes.shapes.train.progress import Progress, learning_rate
from latentc.recipes.shapes.train.prompts import prompt_table, tokenize
from latentc.recipes.shapes.train.train_text import WIDTH
from latentc.recipes.shapes.train.train_vae import LATENT_CHANNELS

BATCH = 32
CAPTION_DROPOUT = 0.1
TEXT_FACTOR = 0.5
"""Learning rate of the text towers in parts of the denoiser's."""
SAVE_EVERY_STEPS = 200


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
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    table = prompt_table(tokenizer, scenes_for_training())
    empty = tokenize(tokenizer, [""])[0]
    alphas = make_scheduler().alphas_cumprod
    groups = [
        {"params": list(denoiser.unet.parameters()), "factor": 1.0},
        {"params": list(denoiser.text.parameters()), "factor": TEXT_FACTOR},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak_rate, betas=(0.9, 0.99), weight_decay=1e-2)
    average = {name: value.clone() for name, value in denoiser.state_dict().items()}
    first_step = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        denoiser.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first_step = state["average"], state["step"]
    denoiser.train()
    progress = Progress("sd", steps, first_step)
    running = 0.0
    for step in range(first_step, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step, steps, peak_rate)
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
        loss = ((guess.float() - velocity) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        update_average(average, denoiser, step)
        running += (loss.item() - running) * max(0.02, 1 / (step - first_step + 1))
        if (step + 1) % 100 == 0:
            progress.write(step + 1, loss=running)
        if (step + 1) % SAVE_EVERY_STEPS == 0 or step + 1 == steps:
            state = {"model": denoiser.state_dict(), "optimizer": optimizer.state_dict()}
            save_whole({**state, "average": average, "step": step + 1}, state_file)
    denoiser.load_state_dict(average)


@torch.no_grad()
def update_average(average: dict[str, torch.Tensor], model: nn.Module, step: int) -> None:
    """Move the running average of the weights a little towards ``model``."""
    decay = min(0.998, (step + 1) / (step + 10))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)


def save_whole(state: dict[str, object], state_file: Path) -> None:
    """Write a training state so that a reader sees all of it or the one before."""
    state_file.parent.mkdir(parents=True, exist_ok=True)
    fresh = state_file.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(state_file)
