"""Sensitivity: how much an error in what one linear gives moves the final latents.

Each linear of the denoiser in turn gets a weight that is a little wrong, in the direction in which rounding
to 4 bits would move it, and the same prompts are drawn again from the same noise. What an error does in an
early step and in a late one is in the answer with its true weight, since the whole trajectory is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latentc.compiler.finished_units import FinishedUnits
from latentc.compiler.sampling_loop import batches_of
from latentc.errors import ModelError
from latentc.runtime import noise

if TYPE_CHECKING:
    from latentc.compiler.original import Original, Tensors
    from latentc.compiler.stage import Progress

PERTURBATION = 0.02
"""Relative error that a linear's output is given: small, so that its effect is in proportion."""

_LEVELS = 7  # the levels of 4 bits on each side of zero


def measure_gains(
    original: Original,
    prompts: Sequence[str],
    seeds: Sequence[int],
    units: Path,
    progress: Progress,
    perturbation: float = PERTURBATION,
) -> dict[str, float]:
    """By weight name: squared relative error of the final latents over that of the linear's output.

    Args:
        original: the pipeline; its weights are as before when this returns.
        prompts: all are drawn for every linear.
        seeds: one a prompt.
        units: a folder for latentc.compiler.finished_units, with what an earlier such call had measured.
        progress: told of each linear.
        perturbation: relative error that each linear's output is given.

    Raises:
        ModelError: the pipeline gives NaN or infinity.
        OSError: ``units`` cannot be written.
    """
    linears = {
        f"{name}.weight": part
        for name, part in original.denoiser.named_modules()
        if isinstance(part, torch.nn.Linear)
    }
    finished = FinishedUnits(units, 1 + len(linears))  # the first is what all are compared with
    run = _Run(original, prompts, seeds)
    exact, errors = _undisturbed(run, linears, finished, progress)
    size = exact.square().sum()
    gains: dict[str, float] = {}
    for number, (name, part) in enumerate(linears.items(), start=1):
        unit = finished.read(number)
        if unit is not None:
            gains[name] = float(unit["gain"])
            continue
        progress(finished.count() / finished.total, f"{name} ({number} of {len(linears)})")
        gains[name] = 0.0
        error = errors[name]
        if error != 0:  # else never called, zero, or a weight that 4 bits hold
            kept = part.weight.data
            part.weight.data = kept + _rounding_error(kept) * (perturbation / error)
            moved = run.final_latents()
            part.weight.data = kept
            gains[name] = float((moved - exact).square().sum() / size) / perturbation**2
        finished.write(number, {"gain": np.array(gains[name])})
    return gains


def _undisturbed(
    run: _Run, linears: Mapping[str, torch.nn.Linear], finished: FinishedUnits, progress: Progress
) -> tuple[torch.Tensor, dict[str, float]]:
    """The final latents of the original, and what rounding would do to each linear's output."""
    unit = finished.read(0)
    if unit is not None:
        errors = dict(zip(linears, unit["errors"].tolist(), strict=True))
        return torch.from_numpy(unit["latents"].astype(np.float64)), errors
    progress(finished.count() / finished.total, "drawing with the original")
    with _LocalErrors(linears) as local:
        exact = run.final_latents()
    errors = {name: local.relative(name) for name in linears}
    finished.write(0, {"latents": exact.numpy(), "errors": np.array(list(errors.values()), np.float64)})
    return exact, errors


class _Run:
    """Prompts with their noise, drawn as often as asked, without their pictures."""

    def __init__(self, original: Original, prompts: Sequence[str], seeds: Sequence[int]) -> None:
        options = original.options
        self._original = original
        self._negative = None
        if original.is_guided:
            self._negative = original.embed(original.token_ids([options.negative_prompt]))
        self._batches = [
            (
                original.embed(original.token_ids(prompts[batch.start : batch.stop])),
                seeds[batch.start : batch.stop],
            )
            for batch in batches_of(len(prompts), options.height, options.width)
        ]

    def final_latents(self) -> torch.Tensor:
        """[P, C, h, w] float64; raises ModelError when it is not finite."""
        return torch.cat([self._drawn(embeddings, seeds) for embeddings, seeds in self._batches]).double()

    def _drawn(self, embeddings: Tensors, seeds: Sequence[int]) -> torch.Tensor:
        shape = self._original.latent_shape

        def step_noise(step: int) -> torch.Tensor:
            return torch.from_numpy(noise.step_noise(seeds, step, *shape))

        first = torch.from_numpy(noise.initial_latent(seeds, *shape))
        latents = self._original.denoise(first, embeddings, self._negative, step_noise, lambda call: None)
        if not bool(latents.isfinite().all()):
            raise ModelError(
                str(self._original.options.model_root),
                "the denoiser gives NaN or infinity for a calibration prompt",
                "check the checkpoint with diffusers alone",
            )
        return latents


def _rounding_error(weight: torch.Tensor) -> torch.Tensor:
    """What rounding ``weight`` [N, K] to 4 bits, a step for each output, adds to it."""
    steps = (weight.abs().amax(dim=1, keepdim=True) / _LEVELS).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight / steps).round() * steps - weight


class _LocalErrors:
    """Looks on while linears are called, and measures what rounding each would do to its output."""

    def __init__(self, linears: Mapping[str, torch.nn.Linear]) -> None:
        self._linears = linears
        self._sums: dict[str, tuple[float, float]] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> _LocalErrors:
        self._hooks = [
            part.register_forward_pre_hook(self._hook(name)) for name, part in self._linears.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def relative(self, name: str) -> float:
        """‖x · error‖ / ‖x · weight‖ over all calls; 0 when there was none."""
        lost, given = self._sums.get(name, (0.0, 0.0))
        return (lost / given) ** 0.5 if given > 0 else 0.0

    def _hook(self, name: str) -> Any:  # noqa: ANN401 # torch's hooks are untyped
        error = _rounding_error(self._linears[name].weight.data)

        def look(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            weight = self._linears[name].weight.data
            lost, total = self._sums.get(name, (0.0, 0.0))
            lost += float((given[0] @ error.T).double().square().sum())
            total += float((given[0] @ weight.T).double().square().sum())
            self._sums[name] = (lost, total)

        return look
