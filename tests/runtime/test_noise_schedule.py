"""Signal levels against diffusers' alphas_cumprod."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
from tests.runtime.beside_diffusers import BETA_SCHEDULES

from latentc.errors import BundleError
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.noise_schedule import signal_levels
from latentc.runtime.scheduler_config import SchedulerConfig

# Where nothing is rescaled both compute the same roundings; see ZERO_SNR_TOLERANCE for the rest.
RESCALED_TOLERANCE = 5e-5


def _levels(config: dict[str, Json]) -> np.typing.NDArray[np.float32]:
    return signal_levels(SchedulerConfig(SchedulerEntry("test", config)), 0.0001, 0.02, "linear")


@pytest.mark.parametrize("count", [20, 77, 1000])
@pytest.mark.parametrize("schedule", BETA_SCHEDULES)
def test_equal_to_the_bit(schedule: str, count: int) -> None:
    config: dict[str, Json] = {"beta_schedule": schedule, "num_train_timesteps": count}
    expected = diffusers.DDIMScheduler(**config).alphas_cumprod.numpy()
    np.testing.assert_array_equal(_levels(config), expected)


@pytest.mark.parametrize("schedule", BETA_SCHEDULES)
def test_rescaled_to_no_terminal_signal(schedule: str) -> None:
    config: dict[str, Json] = {"beta_schedule": schedule, "rescale_betas_zero_snr": True}
    levels = _levels(config)
    expected = diffusers.DDIMScheduler(**config).alphas_cumprod.numpy()
    assert levels[-1] == 0.0
    np.testing.assert_allclose(levels, expected, rtol=RESCALED_TOLERANCE, atol=0)


def test_impossible_counts() -> None:
    with pytest.raises(BundleError, match="num_train_timesteps: is 1, wanted at least 2"):
        _levels({"num_train_timesteps": 1})
    with pytest.raises(BundleError, match="trained_betas: has 1 values, wanted num_train_timesteps = 3"):
        _levels({"num_train_timesteps": 3, "trained_betas": [0.1]})
