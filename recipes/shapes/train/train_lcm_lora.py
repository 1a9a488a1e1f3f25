"""Train shapes-sd-lcm-lora: consistency distillation of shapes-sd into four steps without guidance."""

from __future__ import annotations

import copy

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from latentc.recipes.shapes.scene import scenes_for_training
from latentc.recipes.shapes.train.latents import LatentStore
from latentc.recipes.shapes.train.pipelines import GUIDANCE
from latentc.recipes.shapes.train.progress import Progress, learning_rate
from latentc.recipes.shapes.train.prompts import prompt_table, tokenize
from latentc.recipes.shapes.train.train_sd import make_scheduler
from latentc.recipes.shapes.train.train_style_lora import LINEARS, add_lora

RANK = 32
BATCH = 32
ORIGINAL_STEPS = 50
"""Points the teacher's path has; LCMScheduler picks its four steps among them."""
_TIME_SCALING = 10.0
_DATA_DEVIATION = 0.5


@sdpa_kernel(SDPBackend.MATH)  # the flash kernel's backward pass is slow on a CPU
def train_lcm_lora(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    store: LatentStore,
    steps: int,
    seed: int,
    peak_rate: float = 1e-3,
) -> None:
    """Add adapters to ``unet`` and train them so that every point of the teacher's path leads to its end."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    teacher = copy.deepcopy(unet).requires_grad_(False)
    add_lora(unet, RANK, LINEARS)
    text.requires_grad_(False)
    table = prompt_table(tokenizer, scenes_for_training())
    alphas = make_scheduler().alphas_cumprod
    with torch.no_grad():
        nothing = text(tokenize(tokenizer, [""])).last_hidden_state
    trained = [value for value in unet.parameters() if value.requires_grad]
    average = [value.detach().clone() for value in trained]
    optimizer = torch.optim.AdamW(trained, lr=peak_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    progress = Progress("lcm lora", steps)
    stride = len(alphas) // ORIGINAL_STEPS
    running = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_rate, warmup_steps=30)
        latents, rows = store.draw(BATCH, rng)
        point = torch.from_numpy(rng.integers(1, ORIGINAL_STEPS + 1, BATCH))
        late, early = point * stride - 1, (point - 1) * stride - 1
        noisy = _mix(latents, torch.randn_like(latents), late, alphas)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            states = text(table.draw(rows, rng)).last_hidden_state
            both = torch.cat([states, nothing.expand(BATCH, -1, -1)])
            velocity = teacher(noisy.repeat(2, 1, 1, 1), late.repeat(2), both).sample.float()
            said, unsaid = (_clean_and_noise(noisy, each, late, alphas) for each in velocity.chunk(2))
            clean = unsaid[0] + GUIDANCE * (said[0] - unsaid[0])
            noise = unsaid[1] + GUIDANCE * (said[1] - unsaid[1])
            earlier = _mix(clean, noise, early, alphas)
            with _weights(trained, average):
                target = _consistent(unet, earlier, early, states, alphas)
            target = torch.where((early < 0).view(-1, 1, 1, 1), clean, target)
        with torch.autocast("cpu", torch.bfloat16):  # anew: the one above may keep weights without gradient
            guess = _consistent(unet, noisy, late, states, alphas)
        loss = (((guess - target) ** 2 + 1e-4).sqrt() - 1e-2).mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        with torch.no_grad():
            for slow, value in zip(average, trained, strict=True):
                slow.lerp_(value, 0.05)
        running += (loss.item() - running) * max(0.02, 1 / (step + 1))
        if (step + 1) % 25 == 0:
            progress.write(step + 1, loss=running)
    with torch.no_grad():
        for value, slow in zip(trained, average, strict=True):
            value.copy_(slow)


class _weights:  # noqa: N801  (reads as a word at its only use)
    """Swap ``inside`` into ``parameters`` for the length of a with-block."""

    def __init__(self, parameters: list[nn.Parameter], inside: list[torch.Tensor]) -> None:
        self.parameters, self.inside = parameters, inside

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.inside[index] = self.inside[index], parameter.data


def _mix(clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    """The point at ``times`` on the way from ``clean`` (times below zero) to ``noise``."""
    kept = _kept(times, alphas)
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise


def _kept(times: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    kept = torch.where(times < 0, torch.ones(()), alphas[times.clamp(min=0)])
    return kept.view(-1, 1, 1, 1)


def _clean_and_noise(
    noisy: torch.Tensor, velocity: torch.Tensor, times: torch.Tensor, alphas: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    kept = _kept(times, alphas)
    clean = kept.sqrt() * noisy - (1 - kept).sqrt() * velocity
    noise = (1 - kept).sqrt() * noisy + kept.sqrt() * velocity
    return clean, noise


def _consistent(
    unet: UNet2DConditionModel,
    noisy: torch.Tensor,
    times: torch.Tensor,
    states: torch.Tensor,
    alphas: torch.Tensor,
) -> torch.Tensor:
    """End of the path from ``noisy``, with the same boundary scaling as LCMScheduler."""
    velocity = unet(noisy, times.clamp(min=0), states).sample.float()
    clean, _ = _clean_and_noise(noisy, velocity, times.clamp(min=0), alphas)
    scaled = (times.clamp(min=0).view(-1, 1, 1, 1) * _TIME_SCALING).float()
    skip = _DATA_DEVIATION**2 / (scaled**2 + _DATA_DEVIATION**2)
    out = scaled / (scaled**2 + _DATA_DEVIATION**2).sqrt()
    return skip * noisy + out * clean
