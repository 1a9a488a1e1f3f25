"""Runs a numpy scheduler beside diffusers' own over the same predictions and noise."""

from __future__ import annotations

import zlib
from typing import Any

import diffusers
import numpy as np
import torch

from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.scheduler import scheduler_from_entry

# diffusers hands numpy a tensor in a way that numpy 2 deprecates; nothing of ours does.
DIFFUSERS_WARNING = (
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:diffusers"
)

# Both sides compute in float32, in the same order; torch's square root is off by one unit in the last
# place for one value in five (it comes from a vector library): 6e-8 a factor, a few factors a step.
STEP_TOLERANCE = 1e-6

# rescale_betas_zero_snr subtracts nearly equal roots, so that same unit grows to 2.5e-5 of the last few
# signal levels, and the step inherits half of it.
ZERO_SNR_TOLERANCE = 2e-5

SHAPE = (2, 4, 8, 8)
IMAGE_TOKENS = 100
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")


def seed_of(*parts: object) -> int:
    return zlib.crc32(repr(parts).encode())


def relative_error(ours: Float32Array, theirs: Float32Array) -> float:
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def diffusers_schedule(name: str, config: dict[str, Json], steps: int) -> Any:
    """Diffusers' scheduler with its timesteps set as the pipeline of its family sets them."""
    scheduler = getattr(diffusers, name)(**config)
    if name == "FlowMatchEulerDiscreteScheduler":
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        mu = calculate_shift(
            IMAGE_TOKENS,
            scheduler.config.base_image_seq_len,
            scheduler.config.max_image_seq_len,
            scheduler.config.base_shift,
            scheduler.config.max_shift,
        )
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def compare_with_diffusers(name: str, config: dict[str, Json], steps: int) -> None:
    """Assert equality of timesteps, first deviation and every step of a whole run."""
    tolerance = ZERO_SNR_TOLERANCE if config.get("rescale_betas_zero_snr") else STEP_TOLERANCE
    seed = seed_of(name, config, steps)
    random = np.random.default_rng(seed)
    theirs = diffusers_schedule(name, config, steps)
    ours = scheduler_from_entry(SchedulerEntry(name, config), steps, IMAGE_TOKENS)

    np.testing.assert_array_equal(ours.timesteps.shape, (steps,))
    # Equal as whole numbers; between them only float32's own rounding.
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=2e-7, atol=0)
    expected_sigma = float(getattr(theirs, "init_noise_sigma", 1.0))
    assert abs(ours.init_noise_sigma - expected_sigma) <= tolerance * expected_sigma

    generator, same_generator = torch.Generator(), torch.Generator()
    generator.manual_seed(seed)
    same_generator.manual_seed(seed)
    sample = (random.standard_normal(SHAPE) * ours.init_noise_sigma).astype(np.float32)
    for index, timestep in enumerate(theirs.timesteps):
        if hasattr(theirs, "scale_model_input"):
            scaled = theirs.scale_model_input(torch.from_numpy(sample), timestep).numpy()
            assert relative_error(ours.scale_model_input(sample, index), scaled) <= tolerance
        prediction = random.standard_normal(SHAPE).astype(np.float32)
        extra = {} if name == "FlowMatchEulerDiscreteScheduler" else {"generator": generator}
        expected = theirs.step(
            torch.from_numpy(prediction), timestep, torch.from_numpy(sample), return_dict=False, **extra
        )[0].numpy()
        noise = None
        if ours.takes_noise and index < steps - 1:
            noise = torch.randn(SHAPE, generator=same_generator).numpy()
        result = ours.step(prediction, index, sample, noise)
        assert result.dtype == np.float32
        assert relative_error(result, expected) <= tolerance, f"step {index}"
        sample = result  # ours, so that errors of a whole run would add up and show
