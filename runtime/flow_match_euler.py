"""Flow matching with Euler steps, as Flux samples (Esser et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latentc.errors import InternalError
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.run_shape import RunShape
from latentc.runtime.scheduler_config import SchedulerConfig

_ONE = np.float32(1.0)


@dataclass(frozen=True)
class FlowMatchEuler:
    """One run of flow matching; see latentc.runtime.scheduler.Scheduler.

    Args:
        timesteps: [steps] float32, 0…num_train_timesteps.
        sigmas: [steps + 1] float32, share of noise before each step and after the last, 1…0.
    """

    timesteps: Float32Array
    sigmas: Float32Array
    init_noise_sigma: float = 1.0
    takes_noise: bool = False

    def scale_model_input(self, sample: Float32Array, index: int) -> Float32Array:
        """A flow's denoiser takes the latent as it is."""
        return sample

    def step(
        self, prediction: Float32Array, index: int, sample: Float32Array, noise: Float32Array | None = None
    ) -> Float32Array:
        """The latent after step ``index``; see Scheduler.step."""
        result: Float32Array = sample + (self.sigmas[index + 1] - self.sigmas[index]) * prediction
        return result


def shift_of_image(
    image_tokens: int, base_tokens: int, max_tokens: int, base_shift: float, max_shift: float
) -> float:
    """Flux's mu: a straight line through (base_tokens, base_shift) and (max_tokens, max_shift)."""
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return image_tokens * slope + (base_shift - slope * base_tokens)


def flow_match_euler_from_config(config: SchedulerConfig, run: RunShape) -> FlowMatchEuler:
    """The schedule of ``run``; raises what latentc.runtime.scheduler.scheduler_from_entry says.

    The unshifted schedule is FluxPipeline's: steps values from 1 down to 1 / steps.
    """
    run.without_eta("FlowMatchEulerDiscreteScheduler")
    trained = config.integer("num_train_timesteps", 1000)
    shift = config.number("shift", 1.0)
    base_tokens, max_tokens = (
        config.integer("base_image_seq_len", 256),
        config.integer("max_image_seq_len", 4096),
    )
    base_shift, max_shift = config.number("base_shift", 0.5), config.number("max_shift", 1.15)
    form = config.choice("time_shift_type", "exponential", ("exponential", "linear"))
    dynamic = config.flag("use_dynamic_shifting", False)
    for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling"):
        config.only(key, False, None)
    config.only("invert_sigmas", False)
    config.only("shift_terminal", None)
    sigmas = np.linspace(1.0, 1.0 / run.steps, run.steps).astype(np.float32)
    if dynamic:
        if run.image_tokens is None:
            raise InternalError("flow matching", "use_dynamic_shifting needs the number of image tokens")
        mu = shift_of_image(run.image_tokens, base_tokens, max_tokens, base_shift, max_shift)
        strength = np.float32(math.exp(mu) if form == "exponential" else mu)
        sigmas = strength / (strength + (_ONE / sigmas - _ONE))
    else:
        sigmas = np.float32(shift) * sigmas / (_ONE + np.float32(shift - 1) * sigmas)
    timesteps = sigmas * np.float32(trained)
    return FlowMatchEuler(timesteps, np.concatenate([sigmas, np.zeros(1, np.float32)]))
