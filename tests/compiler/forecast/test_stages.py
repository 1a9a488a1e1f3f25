"""Foretold stages: every step of a plan has a forecast, and more work takes more."""

import pytest
from tests.compiler import foretold
from tests.compiler.machines import MACHINE

from latentc.compiler.forecast.stages import StageForecast, StageForecaster
from latentc.compiler.plan import plan_recipe
from latentc.recipes.family import Component


def forecasts(*changes: str) -> dict[str, StageForecast]:
    loaded = foretold.recipe(*changes)
    forecaster = StageForecaster(loaded.recipe, foretold.components(*changes), Component.UNET, MACHINE)
    plan = plan_recipe(loaded, foretold.model(), loaded.recipe.targets)
    return {step.label: forecaster.forecast(step.label) for step in plan.steps}


def test_every_step_has_a_forecast() -> None:
    for label, one in forecasts().items():
        assert one.label == label
        assert one.seconds > 0, label
        assert one.peak_bytes > 2**28, label
        assert one.disk_bytes > 0, label


@pytest.mark.parametrize("change", ["validation.count=20", "sampling.steps=20", "sampling.width=256"])
def test_more_pictures_steps_and_pixels_take_longer(change: str) -> None:
    few, many = forecasts(), forecasts(change)
    for label in ("reference", "validate/ort-mobile"):
        assert many[label].seconds > 1.2 * few[label].seconds
    assert many["reference"].disk_bytes > few["reference"].disk_bytes


def test_gradients_take_longest() -> None:
    passes = "passes.denoiser=[canonicalize, allocate, {split-low-rank: {optional: true}}, quantize-int4]"
    found = forecasts(passes, "calibration.count=3", "calibration.sensitivity=3")
    assert found["sensitivity"].seconds > 10 * found["calibrate"].seconds
    assert found["sensitivity"].peak_bytes > found["calibrate"].peak_bytes
