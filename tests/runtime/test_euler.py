"""Euler against diffusers' EulerDiscreteScheduler."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from tests.runtime.beside_diffusers import (
    BETA_SCHEDULES,
    DIFFUSERS_WARNING,
    PREDICTIONS,
    SPACINGS,
    compare_with_diffusers,
)

from latentc.errors import TargetError
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.scheduler import scheduler_from_entry

pytestmark = pytest.mark.filterwarnings(DIFFUSERS_WARNING)


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


@pytest.mark.parametrize("steps", [1, 7, 30])
@pytest.mark.parametrize("config", list(_euler_configs()))
def test_equal_to_diffusers(config: dict[str, Json], steps: int) -> None:
    compare_with_diffusers("EulerDiscreteScheduler", config, steps)


def test_eta_is_ddims_alone() -> None:
    with pytest.raises(TargetError, match="EulerDiscreteScheduler has no eta"):
        scheduler_from_entry(SchedulerEntry("EulerDiscreteScheduler", {}), 4, eta=0.5)
