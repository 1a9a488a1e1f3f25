"""Train shapes-sd-style-lora: the outlined style on top of shapes-sd, as a low-rank adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from latentc.recipes.shapes.scene import scenes_for_training
from latentc.recipes.shapes.train.latents import LatentStore
from latentc.recipes.shapes.train.pipelines import replace_folder
from latentc.recipes.shapes.train.progress import Progress, learning_rate
from latentc.recipes.shapes.train.prompts import prompt_table, tokenize
from latentc.recipes.shapes.train.train_sd import CAPTION_DROPOUT, make_scheduler

RANK = 16
BATCH = 48
LINEARS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
"""Names the adapters hang on; all projections of all attention blocks."""


def add_lora(
    unet: UNet2DConditionModel, rank: int, targets: list[str], trained_before: Path | None = None
) -> None:
    """Freeze ``unet`` and hang adapters on ``targets``: fresh ones, or those saved in a folder."""
    unet.requires_grad_(False)
    if trained_before is not None:
        unet.load_lora_adapter(
            str(trained_before),
            prefix="unet",
            adapter_name="default",
            weight_name="pytorch_lora_weights.safetensors",
        )
        for name, value in unet.named_parameters():
            if "lora_" in name:
                value.data = value.data.float()
                value.requires_grad_(True)
        return
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
    )


def save_lora(unet: UNet2DConditionModel, folder: Path) -> None:
    """Save the adapters in half precision; ``folder`` appears whole or stays as it was."""
    fresh = folder.with_name(f".{folder.name}.new")
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(
        fresh,
        unet_lora_layers={name: value.half().contiguous() for name, value in layers.items()},
        safe_serialization=True,
    )
    replace_folder(fresh, folder)


@sdpa_kernel(SDPBackend.MATH)  # the flash kernel's backward pass is slow on a CPU
def train_style_lora(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    store: LatentStore,
    steps: int,
    seed: int,
    peak_rate: float = 2e-3,
    trained_before: Path | None = None,
) -> None:
    """Add adapters to ``unet``, or go on with saved ones, and train on outlined pictures from ``store``."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    add_lora(unet, RANK, LINEARS, trained_before)
    text.requires_grad_(False)
    table = prompt_table(tokenizer, scenes_for_training())
    empty = tokenize(tokenizer, [""])[0]
    alphas = make_scheduler().alphas_cumprod
    trained = [value for value in unet.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=peak_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    progress = Progress("style lora", steps)
    running = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_rate, warmup_steps=30)
        latents, rows = store.draw(BATCH, rng)
        tokens = table.draw(rows, rng)
        tokens[torch.from_numpy(rng.random(BATCH) < CAPTION_DROPOUT)] = empty
        times = torch.from_numpy(rng.integers(0, len(alphas), BATCH))
        kept = alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        with torch.autocast("cpu", torch.bfloat16):
            states = text(tokens).last_hidden_state
            guess = unet(kept.sqrt() * latents + (1 - kept).sqrt() * noise, times, states).sample
        loss = ((guess.float() - velocity) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        running += (loss.item() - running) * max(0.02, 1 / (step + 1))
        if (step + 1) % 50 == 0:
            progress.write(step + 1, loss=running)
