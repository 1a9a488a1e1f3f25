import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.validation.bootstrap import mean_interval


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.integers(0, 5))
def test_bounds_and_repetition(values: list[float], seed: int) -> None:
    low, high = mean_interval(values, seed)
    # means are float64 sums of up to 20 values
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == mean_interval(values, seed)


def test_width_is_that_of_a_normal_mean() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    low, high = mean_interval(values.tolist())
    # 2 · 1.96 · σ/√n, within a tenth: 2000 resamples leave about 3 % of noise in a quantile
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
