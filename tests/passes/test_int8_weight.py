"""INT8 weights: the nearest of 255 levels, a step for each output."""

from __future__ import annotations

import numpy as np

from latentc.passes.int8_weight import int8_weight


def test_no_weight_is_further_than_half_a_step(seed: int) -> None:
    weight = np.random.default_rng(seed).standard_t(3, (96, 40)).astype(np.float32)
    held = int8_weight(weight)
    assert (held.codes.min(), held.codes.max()) >= (-127, 127)
    assert np.array_equal(held.steps, held.steps.astype(np.float16).astype(np.float32))
    # 2⁻¹¹: the step itself is rounded to float16, and the largest weight is 127 steps away
    slack = 0.5 + 127 * 2.0**-11
    assert (np.abs(held.floats() - weight) <= slack * held.steps).all()


def test_a_column_of_zeros_stays_zero() -> None:
    held = int8_weight(np.zeros((16, 2), np.float32))
    assert not held.floats().any()
    assert (held.steps > 0).all()
