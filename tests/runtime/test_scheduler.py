"""Each numpy scheduler against diffusers' own, step by step and over a whole run."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from latentc.errors import BundleError, InternalError, TargetError, UsageError
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.scheduler import scheduler_from_entry

# diffusers hands numpy a tensor in a way that numpy 2 deprecates; nothing of ours does.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:diffusers"
)

# Both sides compute in float32, in the same order; torch's square root is off by one unit in the last
# place for one value in five (it comes from a vector library): 6e-8 a factor, a few factors a step.
STEP_TOLERANCE = 1e-6

# rescale_betas_zero_snr subtracts nearly equal roots, so that same unit grows to 2.5e-5 of the last few
# signal levels, and the step inherits half of it.
ZERO_SNR_TOLERANCE = 2e-5

SHAPE = (2, 4, 8, 8)
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")


def _ddim_configs() -> Iterator[dict[str, Json]]:
    for betas, prediction, spacing in itertools.product(BETA_SCHEDULES, PREDICTIONS, SPACINGS):
        yield {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": betas,
            "prediction_type": prediction,
            "timestep_spacing": spacing,
            "steps_offset": 1,
            "set_alpha_to_one": False,
            "clip_sample": False,
        }
    yield {}  # diffusers' own defaults, clip_sample among them
    yield {"clip_sample": True, "clip_sample_range": 0.7, "prediction_type": "sample", "steps_offset": 0}
    yield {"trained_betas": [0.001 * (i + 1) for i in range(200)], "num_train_timesteps": 200}
    yield {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}


def _euler_configs() -> Iterator[dict[str, Json]]:
    for betas, prediction, spacing in itertools.product(BETA_SCHEDULES, PREDICTIONS, SPACINGS):
        yield {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": betas,
            "prediction_type": prediction,
            "timestep_spacing": spacing,
            "steps_offset": 1,
        }
    yield {}
    yield {"final_sigmas_type": "sigma_min", "sigma_min": None, "use_karras_sigmas": False}
    yield {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}


def _lcm_configs() -> Iterator[dict[str, Json]]:
    for betas, prediction in itertools.product(BETA_SCHEDULES, PREDICTIONS):
        yield {"beta_schedule": betas, "prediction_type": prediction}
    yield {"original_inference_steps": 100, "timestep_scaling": 7.5, "clip_sample": True}
    yield {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "original_inference_steps": 40}


def _flow_configs() -> Iterator[dict[str, Json]]:
    yield {}
    yield {"shift": 3.0}
    yield {"use_dynamic_shifting": True, "shift": 3.0}
    yield {"use_dynamic_shifting": True, "base_shift": 0.3, "max_shift": 1.4, "time_shift_type": "linear"}
    yield {"use_dynamic_shifting": True, "base_image_seq_len": 16, "max_image_seq_len": 64}


def _cases() -> Iterator[tuple[str, dict[str, Json], int]]:
    for config, steps in itertools.product(_ddim_configs(), (1, 7, 50)):
        yield "DDIMScheduler", config, steps
    for config, steps in itertools.product(_euler_configs(), (1, 7, 30)):
        yield "EulerDiscreteScheduler", config, steps
    for config, steps in itertools.product(_lcm_configs(), (1, 4, 7)):
        yield "LCMScheduler", config, steps
    for config, steps in itertools.product(_flow_configs(), (1, 4, 28)):
        yield "FlowMatchEulerDiscreteScheduler", config, steps


def _seed(*parts: object) -> int:
    return zlib.crc32(repr(parts).encode())


def _relative_error(ours: Float32Array, theirs: Float32Array) -> float:
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def _theirs(name: str, config: dict[str, Json], steps: int, image_tokens: int) -> Any:
    """Diffusers' scheduler with its timesteps set as the pipeline of its family sets them."""
    scheduler = getattr(diffusers, name)(**config)
    if name == "FlowMatchEulerDiscreteScheduler":
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        mu = calculate_shift(
            image_tokens,
            scheduler.config.base_image_seq_len,
            scheduler.config.max_image_seq_len,
            scheduler.config.base_shift,
            scheduler.config.max_shift,
        )
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    else:
        scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize(("name", "config", "steps"), list(_cases()))
def test_equal_to_diffusers(name: str, config: dict[str, Json], steps: int) -> None:
    tolerance = ZERO_SNR_TOLERANCE if config.get("rescale_betas_zero_snr") else STEP_TOLERANCE
    seed = _seed(name, config, steps)
    random = np.random.default_rng(seed)
    image_tokens = 100
    theirs = _theirs(name, config, steps, image_tokens)
    ours = scheduler_from_entry(SchedulerEntry(name, config), steps, image_tokens)

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
            assert _relative_error(ours.scale_model_input(sample, index), scaled) <= tolerance
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
        assert _relative_error(result, expected) <= tolerance, f"step {index}"
        sample = result  # ours, so that errors of a whole run would add up and show


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_ddim_with_eta_takes_the_noise_it_is_given(eta: float, spacing: str) -> None:
    config: dict[str, Json] = {"clip_sample": False, "timestep_spacing": spacing}
    theirs = _theirs("DDIMScheduler", config, 10, 0)
    ours = scheduler_from_entry(SchedulerEntry("DDIMScheduler", config), 10, eta=eta)
    random = np.random.default_rng(_seed("eta", eta, spacing))
    sample = random.standard_normal(SHAPE).astype(np.float32)
    assert ours.takes_noise
    for index, timestep in enumerate(theirs.timesteps):
        prediction, noise = random.standard_normal((2, *SHAPE)).astype(np.float32)
        expected = theirs.step(
            torch.from_numpy(prediction),
            timestep,
            torch.from_numpy(sample),
            eta=eta,
            variance_noise=torch.from_numpy(noise),
            return_dict=False,
        )[0].numpy()
        sample = ours.step(prediction, index, sample, noise)
        assert _relative_error(sample, expected) <= STEP_TOLERANCE


@pytest.mark.parametrize(
    ("name", "key", "value", "error"),
    [
        ("DDIMScheduler", "thresholding", True, TargetError),
        ("DDIMScheduler", "beta_schedule", "sigmoid", TargetError),
        ("DDIMScheduler", "prediction_type", "flow_prediction", TargetError),
        ("DDIMScheduler", "timestep_spacing", "karras", TargetError),
        ("DDIMScheduler", "skip_prk_steps", True, BundleError),
        ("DDIMScheduler", "beta_start", "small", BundleError),
        ("DDIMScheduler", "num_train_timesteps", 1000.5, BundleError),
        ("DDIMScheduler", "clip_sample", "yes", BundleError),
        ("DDIMScheduler", "trained_betas", [0.1, 0.2], BundleError),
        ("EulerDiscreteScheduler", "use_karras_sigmas", True, TargetError),
        ("EulerDiscreteScheduler", "interpolation_type", "log_linear", TargetError),
        ("EulerDiscreteScheduler", "timestep_type", "continuous", TargetError),
        ("LCMScheduler", "thresholding", True, TargetError),
        ("LCMScheduler", "original_inference_steps", 0, BundleError),
        ("FlowMatchEulerDiscreteScheduler", "shift_terminal", 0.1, TargetError),
        ("FlowMatchEulerDiscreteScheduler", "invert_sigmas", True, TargetError),
        ("FlowMatchEulerDiscreteScheduler", "stochastic_sampling", True, TargetError),
    ],
)
def test_a_value_that_is_not_implemented_is_named(
    name: str, key: str, value: Json, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        scheduler_from_entry(SchedulerEntry(name, {key: value}), 4, 64)
    assert key in str(caught.value)


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(BundleError) as caught:
        scheduler_from_entry(SchedulerEntry("DDIMScheduler", {"beta_strat": 0.1}), 4)
    assert str(caught.value) == (
        "manifest.json: scheduler.config.beta_strat (DDIMScheduler): the key is unknown (value 0.1)\n"
        "fix: did you mean 'beta_start'?"
    )


def test_unknown_scheduler_names_the_nearest() -> None:
    with pytest.raises(TargetError) as caught:
        scheduler_from_entry(SchedulerEntry("DDPMScheduler", {}), 4)
    assert str(caught.value) == (
        "manifest.json: scheduler.name: there is no scheduler 'DDPMScheduler'\n"
        "fix: did you mean 'DDIMScheduler'?"
    )


@pytest.mark.parametrize(
    ("name", "config", "steps", "words"),
    [
        ("DDIMScheduler", {}, 0, "wanted at least 1"),
        ("DDIMScheduler", {}, 1001, "at most 1000 steps"),
        ("DDIMScheduler", {"steps_offset": 1}, 1000, "above the last trained one"),
        ("LCMScheduler", {}, 51, "distilled on a schedule of 50"),
    ],
)
def test_impossible_steps(name: str, config: dict[str, Json], steps: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scheduler_from_entry(SchedulerEntry(name, config), steps)


@pytest.mark.parametrize("name", ["DDIMScheduler", "LCMScheduler"])
def test_no_signal_and_epsilon_prediction_is_refused(name: str) -> None:
    config: dict[str, Json] = {"rescale_betas_zero_snr": True}
    if name == "DDIMScheduler":
        config["timestep_spacing"] = "trailing"
    with pytest.raises(BundleError, match="no signal at the first timestep"):
        scheduler_from_entry(SchedulerEntry(name, config), 4)


def test_missing_noise_is_a_defect_of_ours() -> None:
    zeros = np.zeros(SHAPE, np.float32)
    with pytest.raises(InternalError, match="no noise was given"):
        scheduler_from_entry(SchedulerEntry("LCMScheduler", {}), 4).step(zeros, 0, zeros)
    with pytest.raises(InternalError, match="no noise was given"):
        scheduler_from_entry(SchedulerEntry("DDIMScheduler", {}), 4, eta=1.0).step(zeros, 0, zeros)


def test_eta_is_ddims_alone() -> None:
    with pytest.raises(TargetError, match="has no eta"):
        scheduler_from_entry(SchedulerEntry("EulerDiscreteScheduler", {}), 4, eta=0.5)
    with pytest.raises(UsageError, match="wanted 0…1"):
        scheduler_from_entry(SchedulerEntry("DDIMScheduler", {}), 4, eta=1.5)
