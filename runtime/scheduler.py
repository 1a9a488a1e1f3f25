"""Schedulers: from a denoiser's predictions to a latent, step by step. SCHEDULERS is the catalogue.

Each is a numpy form of the diffusers scheduler of the same name, equal to it step by step, for the
configurations that it accepts; any other is refused by key and value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from latentc.errors import TargetError, UsageError, nearest
from latentc.runtime.ddim import ddim_from_config
from latentc.runtime.euler import euler_from_config
from latentc.runtime.flow_match_euler import flow_match_euler_from_config
from latentc.runtime.lcm import lcm_from_config
from latentc.runtime.manifest import SchedulerEntry
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.run_shape import RunShape
from latentc.runtime.scheduler_config import SchedulerConfig


class Scheduler(Protocol):
    """One run's schedule; made for a number of steps and without any changing state."""

    @property
    def timesteps(self) -> Float32Array:
        """[steps] float32: what the denoiser is told at each step, 0…num_train_timesteps, falling."""

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first latent; noise of deviation 1 is multiplied by it."""

    @property
    def takes_noise(self) -> bool:
        """Whether ``step`` needs fresh noise at every step but the last."""

    def scale_model_input(self, sample: Float32Array, index: int) -> Float32Array:
        """The latent as the denoiser of step ``index`` wants it; same shape as ``sample``."""

    def step(
        self, prediction: Float32Array, index: int, sample: Float32Array, noise: Float32Array | None = None
    ) -> Float32Array:
        """The latent after step ``index``.

        Args:
            prediction: the denoiser's output, after guidance, float32.
            index: 0…steps-1.
            sample: the latent before the step, unscaled, float32, shaped like ``prediction``.
            noise: standard normal of the same shape, when ``takes_noise``.

        Raises:
            InternalError: noise is needed and missing.
        """


@dataclass(frozen=True)
class SchedulerKind:
    """A row of the catalogue: diffusers' class name and what makes one run's schedule."""

    name: str
    from_config: Callable[[SchedulerConfig, RunShape], Scheduler]


SCHEDULERS: tuple[SchedulerKind, ...] = (
    SchedulerKind("DDIMScheduler", ddim_from_config),
    SchedulerKind("EulerDiscreteScheduler", euler_from_config),
    SchedulerKind("LCMScheduler", lcm_from_config),
    SchedulerKind("FlowMatchEulerDiscreteScheduler", flow_match_euler_from_config),
)


def scheduler_from_entry(
    entry: SchedulerEntry, steps: int, image_tokens: int | None = None, eta: float = 0.0
) -> Scheduler:
    """The schedule of one run.

    Args:
        entry: diffusers' class name and configuration values.
        steps: denoiser calls, 1 or more.
        image_tokens: S, for schedules that shift with the picture's size.
        eta: DDIM's share of fresh noise, 0 (none) to 1 (as DDPM).

    Raises:
        UsageError: ``steps`` or ``eta`` is out of range for this scheduler.
        BundleError: a key is unknown or mistyped.
        TargetError: the scheduler, or a value of a known key, is not implemented.
    """
    if steps < 1:
        raise UsageError("--steps", f"is {steps}, wanted at least 1", "ask for 1 step or more")
    for kind in SCHEDULERS:
        if kind.name == entry.name:
            config = SchedulerConfig(entry)
            scheduler = kind.from_config(config, RunShape(steps, image_tokens, eta))
            config.finish()
            return scheduler
    raise TargetError(
        "manifest.json: scheduler.name",
        f"there is no scheduler '{entry.name}'",
        nearest(entry.name, [kind.name for kind in SCHEDULERS]),
    )
