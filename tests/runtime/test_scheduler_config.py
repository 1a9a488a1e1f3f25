"""Every key of a scheduler's configuration is understood, or refused by name and value."""

from __future__ import annotations

import pytest

from latentc.errors import BundleError, TargetError
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.scheduler import scheduler_from_entry


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
