"""The loop in which shapes-sd and shapes-flux are trained: AdamW, clipped gradients, averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from latentc.recipes.shapes.train.progress import Progress, learning_rate

BATCH = 32
TEXT_FACTOR = 0.5
"""Learning rate of the text towers in parts of the denoiser's."""
SAVE_EVERY_STEPS = 200


def train_denoiser(
    name: str,
    model: nn.Module,
    text_towers: Sequence[nn.Module],
    loss_of_batch: Callable[[np.random.Generator], torch.Tensor],
    state_file: Path,
    steps: int,
    seed: int,
    peak_rate: float,
) -> None:
    """Train ``model`` in place, going on from ``state_file`` if it is there; ends with averaged weights.

    Args:
        name: what progress lines begin with.
        model: the denoiser together with its text towers.
        text_towers: the parts of ``model`` that learn at ``TEXT_FACTOR`` of the rate.
        loss_of_batch: draws a batch with the generator it is given and returns its loss, a scalar.
        state_file: receives model, optimizer, average and step, every ``SAVE_EVERY_STEPS``.
        steps: number of the last step; the learning rate falls towards it.
        seed: where all randomness comes from. A run that goes on draws other batches than the one before.
        peak_rate: highest learning rate.
    """
    in_towers = {id(value) for tower in text_towers for value in tower.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in in_towers], "factor": 1.0},
        {"params": [p for p in model.parameters() if id(p) in in_towers], "factor": TEXT_FACTOR},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak_rate, betas=(0.9, 0.99), weight_decay=1e-2)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    first_step = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first_step = state["average"], state["step"]
    torch.manual_seed(seed + first_step)
    rng = np.random.default_rng([seed, first_step])
    model.train()
    progress = Progress(name, steps, first_step)
    running = 0.0
    for step in range(first_step, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step, steps, peak_rate)
        loss = loss_of_batch(rng)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, step)
        running += (loss.item() - running) * max(0.02, 1 / (step - first_step + 1))
        if (step + 1) % 100 == 0:
            progress.write(step + 1, loss=running)
        if (step + 1) % SAVE_EVERY_STEPS == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_whole({**state, "average": average, "step": step + 1}, state_file)
    model.load_state_dict(average)


def save_whole(state: dict[str, object], state_file: Path) -> None:
    """Write a training state so that a reader sees all of it or the one before."""
    state_file.parent.mkdir(parents=True, exist_ok=True)
    fresh = state_file.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(state_file)


@torch.no_grad()
def update_average(
    average: dict[str, torch.Tensor], model: nn.Module, step: int, slowest: float = 0.998
) -> None:
    """Move the running average of the weights a little towards ``model``.

    Args:
        average: as ``model.state_dict()`` has it; changed in place. What is not floating point stays.
        model: after its step number ``step``, counted from 0.
        step: early averages forget faster, so that the untrained weights do not linger.
        slowest: how much of the average stays in later steps, from 0 to 1.
    """
    decay = min(slowest, (step + 1) / (step + 10))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
