"""LCM against diffusers' LCMScheduler."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from tests.runtime.beside_diffusers import (
    BETA_SCHEDULES,
    DIFFUSERS_WARNING,
    PREDICTIONS,
    SHAPE,
    compare_with_diffusers,
)

from latentc.errors import BundleError, InternalError, UsageError
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.scheduler import scheduler_from_entry

pytestmark = pytest.mark.filterwarnings(DIFFUSERS_WARNING)


def _lcm_configs() -> Iterator[dict[str, Json]]:
    for betas, prediction in itertools.product(BETA_SCHEDULES, PREDICTIONS):
        yield {"beta_schedule": betas, "prediction_type": prediction}
    yield {"original_inference_steps": 100, "timestep_scaling": 7.5, "clip_sample": True}
    yield {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "original_inference_steps": 40}


@pytest.mark.parametrize("steps", [1, 4, 7])
@pytest.mark.parametrize("config", list(_lcm_configs()))
def test_equal_to_diffusers(config: dict[str, Json], steps: int) -> None:
    compare_with_diffusers("LCMScheduler", config, steps)


def test_missing_noise_is_a_defect_of_ours() -> None:
    zeros = np.zeros(SHAPE, np.float32)
    with pytest.raises(InternalError, match="no noise was given"):
        scheduler_from_entry(SchedulerEntry("LCMScheduler", {}), 4).step(zeros, 0, zeros)


def test_no_signal_and_epsilon_prediction_is_refused() -> None:
    with pytest.raises(BundleError, match="no signal at the first timestep"):
        scheduler_from_entry(SchedulerEntry("LCMScheduler", {"rescale_betas_zero_snr": True}), 4)


def test_more_steps_than_it_was_distilled_on() -> None:
    with pytest.raises(UsageError, match="distilled on a schedule of 50"):
        scheduler_from_entry(SchedulerEntry("LCMScheduler", {}), 51)
