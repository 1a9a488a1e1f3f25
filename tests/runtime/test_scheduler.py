"""The catalogue of schedulers."""

from __future__ import annotations

import pytest

from latentc.errors import TargetError, UsageError
from latentc.runtime.manifest import SchedulerEntry
from latentc.runtime.scheduler import SCHEDULERS, scheduler_from_entry


@pytest.mark.parametrize("name", [kind.name for kind in SCHEDULERS])
def test_each_runs_with_diffusers_defaults(name: str) -> None:
    schedule = scheduler_from_entry(SchedulerEntry(name, {}), 4, 64)
    assert len(schedule.timesteps) == 4
    assert list(schedule.timesteps) == sorted(schedule.timesteps, reverse=True)


@pytest.mark.parametrize("name", [kind.name for kind in SCHEDULERS])
def test_no_steps_at_all(name: str) -> None:
    with pytest.raises(UsageError, match="--steps: is 0, wanted at least 1"):
        scheduler_from_entry(SchedulerEntry(name, {}), 0)


def test_unknown_scheduler_names_the_nearest() -> None:
    with pytest.raises(TargetError) as caught:
        scheduler_from_entry(SchedulerEntry("DDPMScheduler", {}), 4)
    assert str(caught.value) == (
        "manifest.json: scheduler.name: there is no scheduler 'DDPMScheduler'\n"
        "fix: did you mean 'DDIMScheduler'?"
    )
