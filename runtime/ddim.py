"""DDIM: deterministic steps along the denoiser's direction (Song et al. 2021, equations 12 and 16)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentc.errors import BundleError, InternalError, UsageError
from latentc.runtime.noise_schedule import Float32Array, Prediction, Spacing, signal_levels
from latentc.runtime.run_shape import RunShape
from latentc.runtime.scheduler_config import SchedulerConfig

_ONE = np.float32(1.0)


@dataclass(frozen=True)
class Ddim:
    """One run of DDIM; see latentc.runtime.scheduler.Scheduler.

    Args:
        timesteps: [steps] float32, whole numbers.
        levels: [steps] float32, alpha bar at each timestep.
        next_levels: [steps] float32, alpha bar that each step ends at.
        prediction: what the denoiser's output means.
        clip: largest magnitude of the predicted sample; None leaves it alone.
        eta: share of fresh noise.
    """

    timesteps: Float32Array
    levels: Float32Array
    next_levels: Float32Array
    prediction: Prediction
    clip: float | None
    eta: float
    init_noise_sigma: float = 1.0

    @property
    def takes_noise(self) -> bool:
        """Whether ``step`` needs fresh noise."""
        return self.eta > 0

    def scale_model_input(self, sample: Float32Array, index: int) -> Float32Array:
        """DDIM's denoiser takes the latent as it is."""
        return sample

    def step(
        self, prediction: Float32Array, index: int, sample: Float32Array, noise: Float32Array | None = None
    ) -> Float32Array:
        """The latent after step ``index``; see Scheduler.step."""
        level, next_level = self.levels[index], self.next_levels[index]
        signal, deviation = np.sqrt(level), np.sqrt(_ONE - level)
        if self.prediction is Prediction.EPSILON:
            epsilon = prediction
            original = (sample - deviation * prediction) / signal
        elif self.prediction is Prediction.SAMPLE:
            original = prediction
            epsilon = (sample - signal * prediction) / deviation
        else:
            original = signal * sample - deviation * prediction
            epsilon = signal * prediction + deviation * sample
        if self.clip is not None:
            # epsilon stays as predicted: diffusers' use_clipped_model_output is False in its pipelines.
            original = np.clip(original, np.float32(-self.clip), np.float32(self.clip))
        variance = (_ONE - next_level) / (_ONE - level) * (_ONE - level / next_level)
        fresh = np.float32(self.eta) * np.sqrt(variance)
        towards_noise = np.sqrt(_ONE - next_level - fresh**2) * epsilon
        result = np.sqrt(next_level) * original + towards_noise
        if self.takes_noise:
            if noise is None:
                raise InternalError("ddim", "eta is above 0 and no noise was given")
            result = result + fresh * noise
        return np.asarray(result, dtype=np.float32)


def ddim_from_config(config: SchedulerConfig, run: RunShape) -> Ddim:
    """The schedule of ``run``; raises what latentc.runtime.scheduler.scheduler_from_entry says."""
    if not 0.0 <= run.eta <= 1.0:
        raise UsageError("eta", f"is {run.eta}, wanted 0…1", "use 0 for deterministic steps")
    levels = signal_levels(config, 0.0001, 0.02, "linear")
    trained = len(levels)
    run.at_most(trained, "the denoiser was trained on timesteps up to")
    prediction = Prediction(config.choice("prediction_type", "epsilon", [str(p) for p in Prediction]))
    spacing = Spacing(config.choice("timestep_spacing", "leading", [str(s) for s in Spacing]))
    timesteps = _timesteps(spacing, trained, run.steps, config.integer("steps_offset", 0))
    if int(timesteps[0]) >= trained:
        raise UsageError(
            "--steps",
            f"with {run.steps} steps and this steps_offset the first timestep is {int(timesteps[0])}, "
            f"above the last trained one, {trained - 1}",
            "ask for fewer steps",
        )
    final = _ONE if config.flag("set_alpha_to_one", True) else levels[0]
    ends = timesteps - trained // run.steps
    clip_range = config.number("clip_sample_range", 1.0)
    clip = clip_range if config.flag("clip_sample", True) else None
    config.only("thresholding", False)
    config.without_meaning("dynamic_thresholding_ratio", "sample_max_value")
    if prediction is Prediction.EPSILON and bool(np.any(levels[timesteps] == 0)):
        raise BundleError(
            "manifest.json: scheduler.config.prediction_type (DDIMScheduler)",
            "is epsilon, but rescale_betas_zero_snr leaves no signal at the first timestep to divide by",
            "use v_prediction, or timestep_spacing leading",
        )
    return Ddim(
        timesteps=timesteps.astype(np.float32),
        levels=levels[timesteps],
        next_levels=np.where(ends >= 0, levels[np.maximum(ends, 0)], final).astype(np.float32),
        prediction=prediction,
        clip=clip,
        eta=run.eta,
    )


def _timesteps(spacing: Spacing, trained: int, steps: int, offset: int) -> np.typing.NDArray[np.int64]:
    """[steps] int64, falling (Lin et al. 2023, table 2); ``offset`` counts for leading only."""
    if spacing is Spacing.LINSPACE:
        return np.linspace(0, trained - 1, steps).round()[::-1].astype(np.int64)
    if spacing is Spacing.LEADING:
        return np.arange(steps - 1, -1, -1, dtype=np.int64) * (trained // steps) + offset
    return np.round(np.arange(trained, 0, -trained / steps)).astype(np.int64) - 1
