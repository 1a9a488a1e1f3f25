"""Euler: steps of the probability-flow equation in noise deviations (Karras et al. 2022, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentc.runtime.noise_schedule import Float32Array, Prediction, Spacing, signal_levels
from latentc.runtime.run_shape import RunShape
from latentc.runtime.scheduler_config import SchedulerConfig

_ONE = np.float32(1.0)

# diffusers' stand-in for a last signal level of zero, whose noise deviation would be infinite: the
# smallest subnormal of float16.
_SMALLEST_LEVEL = np.float32(2.0**-24)


@dataclass(frozen=True)
class Euler:
    """One run of Euler; see latentc.runtime.scheduler.Scheduler.

    Args:
        timesteps: [steps] float32, between trained timesteps with linspace.
        sigmas: [steps + 1] float32, noise deviation before each step and after the last.
        prediction: what the denoiser's output means.
        init_noise_sigma: deviation of the first latent.
    """

    timesteps: Float32Array
    sigmas: Float32Array
    prediction: Prediction
    init_noise_sigma: float
    takes_noise: bool = False

    def scale_model_input(self, sample: Float32Array, index: int) -> Float32Array:
        """The latent with a deviation of about 1, as the denoiser was trained."""
        scaled: Float32Array = sample / np.sqrt(self.sigmas[index] ** 2 + _ONE)
        return scaled

    def step(
        self, prediction: Float32Array, index: int, sample: Float32Array, noise: Float32Array | None = None
    ) -> Float32Array:
        """The latent after step ``index``; see Scheduler.step."""
        sigma = self.sigmas[index]
        if self.prediction is Prediction.EPSILON:
            original = sample - sigma * prediction
        elif self.prediction is Prediction.SAMPLE:
            original = prediction
        else:
            square = sigma**2 + _ONE
            original = prediction * (-sigma / np.sqrt(square)) + sample / square
        slope = (sample - original) / sigma
        result: Float32Array = sample + slope * (self.sigmas[index + 1] - sigma)
        return result


def euler_from_config(config: SchedulerConfig, run: RunShape) -> Euler:
    """The schedule of ``run``; raises what latentc.runtime.scheduler.scheduler_from_entry says."""
    run.without_eta("EulerDiscreteScheduler")
    levels = signal_levels(config, 0.0001, 0.02, "linear")
    trained = len(levels)
    run.at_most(trained, "the denoiser was trained on timesteps up to")
    if config.flag("rescale_betas_zero_snr", False):
        levels = np.concatenate([levels[:-1], [_SMALLEST_LEVEL]])
    prediction = Prediction(config.choice("prediction_type", "epsilon", [str(p) for p in Prediction]))
    spacing = Spacing(config.choice("timestep_spacing", "linspace", [str(s) for s in Spacing]))
    offset = config.integer("steps_offset", 0)
    final = config.choice("final_sigmas_type", "zero", ("zero", "sigma_min"))
    config.only("interpolation_type", "linear")
    config.only("timestep_type", "discrete")
    for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        config.only(key, False, None)
    config.without_meaning("sigma_min", "sigma_max")  # read with those three only
    timesteps = _timesteps(spacing, trained, run.steps, offset)
    trained_sigmas = np.sqrt((_ONE - levels) / levels)
    # float64 between the trained timesteps, as diffusers: numpy's interpolation knows no other.
    sigmas = np.interp(timesteps, np.arange(trained), trained_sigmas)
    last = trained_sigmas[0] if final == "sigma_min" else 0.0
    sigmas = np.concatenate([sigmas, [last]]).astype(np.float32)
    largest = sigmas.max()
    if spacing is Spacing.LEADING:
        largest = np.sqrt(largest**2 + _ONE)
    return Euler(timesteps, sigmas, prediction, float(largest))


def _timesteps(spacing: Spacing, trained: int, steps: int, offset: int) -> Float32Array:
    """[steps] float32, falling; ``offset`` counts for leading only."""
    if spacing is Spacing.LINSPACE:
        return np.linspace(0, trained - 1, steps, dtype=np.float32)[::-1].copy()
    if spacing is Spacing.LEADING:
        return (np.arange(steps - 1, -1, -1) * (trained // steps) + offset).astype(np.float32)
    return np.arange(trained, 0, -trained / steps).round().astype(np.float32) - _ONE
