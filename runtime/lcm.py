"""LCM: few steps of a latent consistency model, each to a clean sample and back (Luo et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentc.errors import BundleError, InternalError
from latentc.runtime.noise_schedule import Float32Array, Prediction, signal_levels
from latentc.runtime.run_shape import RunShape
from latentc.runtime.scheduler_config import SchedulerConfig

_ONE = np.float32(1.0)

# The data's deviation in the boundary condition: Luo et al. 2023, appendix; fixed in diffusers too.
_DATA_DEVIATION = 0.5


@dataclass(frozen=True)
class Lcm:
    """One run of LCM; see latentc.runtime.scheduler.Scheduler.

    Args:
        timesteps: [steps] float32, whole numbers.
        levels: [steps] float32, alpha bar at each timestep.
        prediction: what the denoiser's output means.
        clip: largest magnitude of the predicted sample; None leaves it alone.
        timestep_scaling: how fast the boundary condition fades with the timestep.
    """

    timesteps: Float32Array
    levels: Float32Array
    prediction: Prediction
    clip: float | None
    timestep_scaling: float
    init_noise_sigma: float = 1.0

    @property
    def takes_noise(self) -> bool:
        """A single step ends at the clean sample; more than one go back to noise in between."""
        return len(self.timesteps) > 1

    def scale_model_input(self, sample: Float32Array, index: int) -> Float32Array:
        """LCM's denoiser takes the latent as it is."""
        return sample

    def step(
        self, prediction: Float32Array, index: int, sample: Float32Array, noise: Float32Array | None = None
    ) -> Float32Array:
        """The latent after step ``index``; see Scheduler.step."""
        signal, deviation = np.sqrt(self.levels[index]), np.sqrt(_ONE - self.levels[index])
        if self.prediction is Prediction.EPSILON:
            original = (sample - deviation * prediction) / signal
        elif self.prediction is Prediction.SAMPLE:
            original = prediction
        else:
            original = signal * sample - deviation * prediction
        if self.clip is not None:
            original = np.clip(original, np.float32(-self.clip), np.float32(self.clip))
        scaled = self.timesteps[index] * np.float32(self.timestep_scaling)
        square = scaled**2 + np.float32(_DATA_DEVIATION**2)
        keep, replace = np.float32(_DATA_DEVIATION**2) / square, scaled / np.sqrt(square)
        clean: Float32Array = replace * original + keep * sample
        if index == len(self.timesteps) - 1:
            return clean
        if noise is None:
            raise InternalError("lcm", f"step {index} is not the last and no noise was given")
        next_level = self.levels[index + 1]
        result: Float32Array = np.sqrt(next_level) * clean + np.sqrt(_ONE - next_level) * noise
        return result


def lcm_from_config(config: SchedulerConfig, run: RunShape) -> Lcm:
    """The schedule of ``run``; raises what latentc.runtime.scheduler.scheduler_from_entry says."""
    run.without_eta("LCMScheduler")
    levels = signal_levels(config, 0.00085, 0.012, "scaled_linear")
    distilled = config.integer("original_inference_steps", 50)
    if not 1 <= distilled <= len(levels):
        raise BundleError(
            "manifest.json: scheduler.config.original_inference_steps (LCMScheduler)",
            f"is {distilled}, wanted 1…{len(levels)}",
            "build the bundle again",
        )
    run.at_most(distilled, "the model was distilled on a schedule of")
    prediction = Prediction(config.choice("prediction_type", "epsilon", [str(p) for p in Prediction]))
    clip_range = config.number("clip_sample_range", 1.0)
    clip = clip_range if config.flag("clip_sample", False) else None
    scaling = config.number("timestep_scaling", 10.0)
    config.only("thresholding", False)
    # The distillation's own schedule replaces spacing and offset, and no step ends below the first
    # trained timestep, so diffusers' LCM stores these and never looks at them.
    config.without_meaning(
        "timestep_spacing",
        "steps_offset",
        "set_alpha_to_one",
        "dynamic_thresholding_ratio",
        "sample_max_value",
    )
    timesteps = _timesteps(len(levels), distilled, run.steps)
    if prediction is Prediction.EPSILON and bool(np.any(levels[timesteps] == 0)):
        raise BundleError(
            "manifest.json: scheduler.config.prediction_type (LCMScheduler)",
            "is epsilon, but rescale_betas_zero_snr leaves no signal at the first timestep to divide by",
            "use v_prediction",
        )
    return Lcm(timesteps.astype(np.float32), levels[timesteps], prediction, clip, scaling)


def _timesteps(trained: int, distilled: int, steps: int) -> NDArray[np.int64]:
    """[steps] int64, falling: evenly chosen ones of the timesteps that the model was distilled on."""
    schedule = np.arange(distilled, 0, -1, dtype=np.int64) * (trained // distilled) - 1
    chosen = np.floor(np.linspace(0, distilled, num=steps, endpoint=False)).astype(np.int64)
    return schedule[chosen]
