"""Static steps: the best of a grid by definition, clipping only where that helps, and no step for zeros."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.static_steps import static_steps

IDENTITY = "g (float[B,K] x) => (float[B,K] y) { y = Identity (x) }"


def steps_of(*samples: np.ndarray) -> dict[str, float]:
    return static_steps("test", model_of(IDENTITY), ["y"], [{"x": sample} for sample in samples])


def lost(values: np.ndarray, step: float) -> float:
    wide = values.astype(np.float64)
    return float(np.square(np.clip(np.rint(wide / step), -127, 127) * step - wide).sum())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 4), st.floats(-20, 20))
def test_no_other_step_of_the_grid_loses_less(seed: int, power: float, scale: float) -> None:
    drawn = np.random.default_rng(seed).standard_normal((64, 32))
    values = (np.sign(drawn) * np.abs(drawn) ** power * 2.0**scale).astype(np.float32)
    step = steps_of(values[:32], values[32:])["y"]
    largest = float(np.abs(values).max()) / 127
    for index in range(15):
        assert lost(values, step) <= lost(values, max(largest * (1 - 0.05 * index), 2.0**-24)) * (1 + 1e-4)


def test_evenly_spread_values_are_not_clipped() -> None:
    values = np.linspace(-127, 127, 255, dtype=np.float32).reshape(1, -1)
    assert steps_of(values)["y"] == pytest.approx(1.0)


def test_one_rare_value_is_clipped() -> None:
    values = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)
    values[0, 0] = 12
    assert steps_of(values)["y"] < 0.9 * 12 / 127


def test_what_is_always_zero_has_no_step() -> None:
    assert steps_of(np.zeros((2, 8), np.float32)) == {}


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(PassError, match="holds NaN or infinity for a recorded input"):
        steps_of(np.array([[1, np.nan]], np.float32))
