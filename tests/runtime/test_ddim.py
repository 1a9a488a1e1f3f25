"""DDIM against diffusers' DDIMScheduler."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.runtime.beside_diffusers import (
    BETA_SCHEDULES,
    DIFFUSERS_WARNING,
    PREDICTIONS,
    SHAPE,
    SPACINGS,
    STEP_TOLERANCE,
    compare_with_diffusers,
    diffusers_schedule,
    relative_error,
    seed_of,
)

from latentc.errors import BundleError, InternalError, UsageError
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.scheduler import scheduler_from_entry

pytestmark = pytest.mark.filterwarnings(DIFFUSERS_WARNING)


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


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("config", list(_ddim_configs()))
def test_equal_to_diffusers(config: dict[str, Json], steps: int) -> None:
    compare_with_diffusers("DDIMScheduler", config, steps)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_ddim_with_eta_takes_the_noise_it_is_given(eta: float, spacing: str) -> None:
    config: dict[str, Json] = {"clip_sample": False, "timestep_spacing": spacing}
    theirs = diffusers_schedule("DDIMScheduler", config, 10)
    ours = scheduler_from_entry(SchedulerEntry("DDIMScheduler", config), 10, eta=eta)
    random = np.random.default_rng(seed_of("eta", eta, spacing))
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
        assert relative_error(sample, expected) <= STEP_TOLERANCE


def test_missing_noise_is_a_defect_of_ours() -> None:
    zeros = np.zeros(SHAPE, np.float32)
    with pytest.raises(InternalError, match="no noise was given"):
        scheduler_from_entry(SchedulerEntry("DDIMScheduler", {}), 4, eta=1.0).step(zeros, 0, zeros)


def test_eta_out_of_range() -> None:
    with pytest.raises(UsageError, match=r"eta: is 1\.5, wanted 0…1"):
        scheduler_from_entry(SchedulerEntry("DDIMScheduler", {}), 4, eta=1.5)


def test_no_signal_and_epsilon_prediction_is_refused() -> None:
    config: dict[str, Json] = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with pytest.raises(BundleError, match="no signal at the first timestep"):
        scheduler_from_entry(SchedulerEntry("DDIMScheduler", config), 4)


@pytest.mark.parametrize(
    ("config", "steps", "words"),
    [({}, 1001, "at most 1000 steps"), ({"steps_offset": 1}, 1000, "above the last trained one")],
)
def test_impossible_steps(config: dict[str, Json], steps: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scheduler_from_entry(SchedulerEntry("DDIMScheduler", config), steps)
