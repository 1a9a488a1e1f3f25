"""Sensitivity: how much an error in what one linear gives moves the final latents.

An error e in a linear's weight moves the final latents by J e, to first order and over the whole trajectory,
so what it does in an early step and in a late one is in the answer with its true weight. Rounding errors are
much like independent noise, of the size of an output's step, and for such noise E‖J e‖² is a weighted sum of
the squares in J. Gradients estimate it: when v holds independent normal numbers, the squared entries of Jᵀ v,
which is the gradient of v · latents, have those sums as their means (Hutchinson 1990; Bekas, Kokiopoulou and
Saad 2007). One gradient serves all linears at once, so a few trajectories do, however many linears there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from latentc.compiler.batches import batches_of
from latentc.compiler.finished_units import FinishedUnits
from latentc.errors import ModelError
from latentc.runtime import noise

if TYPE_CHECKING:
    import numpy.typing as npt

    from latentc.compiler.original import Original
    from latentc.compiler.stage import Progress

PROBES = 4
"""Gradients for each batch of prompts. On shapes-flux (8 prompts) gains from 4 lie 1.4 dB, a deviation, from
those of drawing again with each weight rounded in turn, which among themselves deviate by 6.7 dB."""

Linears: TypeAlias = "Mapping[str, torch.nn.Linear]"


def measure_gains(
    original: Original,
    prompts: Sequence[str],
    seeds: Sequence[int],
    units: Path,
    progress: Progress,
    probes: int = PROBES,
) -> dict[str, float]:
    """By weight name: squared relative error of the final latents over that of the linear's output.

    Args:
        original: the pipeline; its weights are as before when this returns.
        prompts: in batches, each drawn once, and once with its gradient for each probe.
        seeds: one a prompt.
        units: a folder for latentc.compiler.finished_units, with what an earlier such call had measured.
        progress: told of each draw.
        probes: gradients a batch, 1 and up.

    Raises:
        ModelError: the pipeline gives NaN or infinity.
        OSError: ``units`` cannot be written.
    """
    linears = {
        f"{name}.weight": part
        for name, part in original.denoiser.named_modules()
        if isinstance(part, torch.nn.Linear)
    }
    batches = batches_of(len(prompts), original.options.height, original.options.width)
    finished = FinishedUnits(units, len(batches) * (1 + probes))
    lost, given, moved = (np.zeros(len(linears)) for _ in range(3))
    size = 0.0
    for number, batch in enumerate(batches):
        first = number * (1 + probes)
        together = _Batch(original, prompts[batch.start : batch.stop], seeds[batch.start : batch.stop])
        words = f"prompts {batch.start + 1}…{batch.stop}"
        unit = finished.read(first)
        if unit is None:
            progress(finished.count() / finished.total, f"drawing {words}")
            unit = _undisturbed(together, linears)
            finished.write(first, unit)
        lost = lost + unit["lost"].astype(np.float64)
        given = given + unit["given"].astype(np.float64)
        size += float(unit["size"])
        for probe in range(probes):
            unit = finished.read(first + 1 + probe)
            if unit is None:
                progress(finished.count() / finished.total, f"gradient {probe + 1} of {probes} for {words}")
                unit = {"moved": _moved(together, linears, (number, probe))}
                finished.write(first + 1 + probe, unit)
            moved = moved + unit["moved"].astype(np.float64) / probes
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = moved / size * (given / lost)
    # a linear that is never called, or zero, makes no error
    return dict(zip(linears, np.where(lost > 0, gains, 0.0).tolist(), strict=True))


def _undisturbed(batch: _Batch, linears: Linears) -> dict[str, npt.NDArray[np.float64]]:
    """‖x · error‖² and ‖x · weight‖² of each linear, and ‖final latents‖²."""
    with _LocalErrors(linears) as local:
        latents = batch.final_latents()
    return {
        "lost": np.array([local.lost.get(name, 0.0) for name in linears]),
        "given": np.array([local.given.get(name, 0.0) for name in linears]),
        "size": np.array(float(latents.double().square().sum())),
    }


def _moved(batch: _Batch, linears: Linears, seed: tuple[int, int]) -> npt.NDArray[np.float64]:
    """One estimate of E‖what the error of a linear's weight does to the final latents‖², for each linear."""
    weights = [part.weight for part in linears.values()]
    with _requiring_gradients(batch.original.denoiser, weights):
        latents = batch.final_latents(gradients=True)
        drawn = np.random.default_rng(seed).standard_normal(tuple(latents.shape), dtype=np.float32)
        gradients: Sequence[Any] = torch.autograd.grad(
            latents, weights, torch.from_numpy(drawn), allow_unused=True
        )
    return np.array(
        [
            0.0 if gradient is None else float((gradient.double().square() * _variance(weight)).sum())
            for gradient, weight in zip(gradients, weights, strict=True)
        ]
    )


@contextmanager
def _requiring_gradients(module: torch.nn.Module, weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """Let ``weights`` alone, of all parameters of ``module``, require gradients."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        module.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


class _Batch:
    """Prompts that are drawn together with their noise, as often as asked, without their pictures."""

    def __init__(self, original: Original, prompts: Sequence[str], seeds: Sequence[int]) -> None:
        self.original = original
        self._seeds = seeds
        self._embeddings = original.embed(original.token_ids(prompts))
        self._negative = original.embed_negative()
        self._noise = torch.from_numpy(noise.initial_latent(seeds, *original.latent_shape))

    def final_latents(self, *, gradients: bool = False) -> torch.Tensor:
        """[B, C, h, w], with ``gradients`` if asked for; raises ModelError when it is not finite."""
        latents = self.original.denoise(
            self._noise,
            self._embeddings,
            self._negative,
            self._step_noise,
            lambda call: None,
            gradients=gradients,
        )
        if not bool(latents.isfinite().all()):
            raise ModelError(
                str(self.original.options.model_root),
                "the denoiser gives NaN or infinity for a calibration prompt",
                "check the checkpoint with diffusers alone",
            )
        return latents

    def _step_noise(self, step: int) -> torch.Tensor:
        return torch.from_numpy(noise.step_noise(self._seeds, step, *self.original.latent_shape))


def _variance(weight: torch.Tensor) -> torch.Tensor:
    """Of errors in ``weight`` [N, K], up to a factor, [N, 1] float64: steps follow an output's largest."""
    return weight.detach().double().abs().amax(dim=1, keepdim=True).square()


class _LocalErrors:
    """Looks on while linears are called: what errors of their weights add to their outputs, on the mean."""

    def __init__(self, linears: Linears) -> None:
        self._linears = linears
        self.lost: dict[str, float] = {}
        self.given: dict[str, float] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> _LocalErrors:
        self._hooks = [part.register_forward_hook(self._hook(name)) for name, part in self._linears.items()]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Any:  # noqa: ANN401 # torch's hooks are untyped
        variance = float(_variance(self._linears[name].weight).sum())

        def look(module: torch.nn.Linear, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
            bias: torch.Tensor | Any = module.bias  # None without one
            product = result if bias is None else result - bias
            lost = variance * float(given[0].double().square().sum())
            self.lost[name] = self.lost.get(name, 0.0) + lost
            self.given[name] = self.given.get(name, 0.0) + float(product.double().square().sum())

        return look
