"""The correction against float64: nothing drifts, nothing changes; else the original output comes nearer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from latentc.errors import PassError
from latentc.passes.drifted_ways import DAMPING, corrected_weight, drifted_ways
from latentc.passes.gptq import row_factor
from latentc.passes.int4_weight import int4_weight
from latentc.passes.moments import DriftMoments, DriftSums
from latentc.passes.rounding import gptq_weight
from latentc.passes.weights import Floats

GROUP = 16


def drifting(K: int, size: float, seed: int) -> tuple[Floats, Floats]:
    """Rows [6 K, K] as they are seen, and as they were: part of the drift follows from what is seen."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((K, K))
    exact = (generator.standard_normal((6 * K, K)) @ mixing).astype(np.float32)
    turned = exact @ generator.standard_normal((K, K)) / np.sqrt(K) + generator.standard_normal(exact.shape)
    return (exact - size * turned).astype(np.float32), exact


def moments_of(seen: Floats, exact: Floats) -> DriftMoments:
    sums = DriftSums()
    sums.add("x", seen, exact)
    return sums.averages()["x"]


def weights(K: int, N: int, seed: int) -> tuple[Floats, Floats]:
    """What is quantized, and the same with a branch of rank 4 beside it."""
    generator = np.random.default_rng(seed + 1)
    weight = generator.standard_normal((K, N)).astype(np.float32)
    branch = generator.standard_normal((K, 4)) @ generator.standard_normal((4, N))
    return weight, (weight + branch).astype(np.float32)


def far(seen: Floats, exact: Floats, held: Floats, weight: Floats, whole: Floats) -> float:
    """How far seen · (held + branch) is from exact · whole, in float64."""
    beside = whole.astype(np.float64) - weight
    return float(np.linalg.norm(exact.astype(np.float64) @ whole - seen.astype(np.float64) @ (held + beside)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 1000))
def test_where_nothing_drifts_codes_are_those_of_gptq(groups: int, N: int, number: int) -> None:
    weight, whole = weights(groups * GROUP, N, number)
    _, exact = drifting(groups * GROUP, 0.1, number)
    moments = moments_of(exact, exact)
    np.testing.assert_array_equal(corrected_weight(weight, whole, moments), weight)
    ways = drifted_ways(weight, whole, GROUP, moments)
    assert list(ways) == ["nearest", "gptq"]
    nearest = int4_weight(weight, GROUP)
    fitted = gptq_weight(weight, nearest.steps, row_factor(exact.T @ exact / np.float32(len(exact))))
    np.testing.assert_array_equal(ways["nearest"].codes, nearest.codes)
    np.testing.assert_array_equal(ways["gptq"].codes, fitted.codes)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.floats(0.01, 1.0), st.integers(0, 1000))
def test_before_rounding_the_output_comes_no_farther(groups: int, N: int, size: float, number: int) -> None:
    weight, whole = weights(groups * GROUP, N, number)
    seen, exact = drifting(groups * GROUP, size, number)
    corrected = corrected_weight(weight, whole, moments_of(seen, exact))
    before = far(seen, exact, weight, weight, whole)
    assert far(seen, exact, corrected, weight, whole) <= before * (1 + 1e-5)  # float32 moments


def test_it_is_the_least_squares_of_the_whole_output(seed: int) -> None:
    weight, whole = weights(48, 7, seed)
    seen, exact = drifting(48, 0.2, seed)
    wide: NDArray[np.float64] = seen.astype(np.float64)
    damped = wide.T @ wide / len(wide)
    damped += DAMPING * np.trace(damped) / 48 * np.eye(48)
    beside = whole.astype(np.float64) - weight
    wanted = exact.astype(np.float64) @ whole - wide @ (weight + beside)
    expected = weight + np.linalg.solve(damped, wide.T @ wanted / len(wide))
    found = corrected_weight(weight, whole, moments_of(seen, exact))
    np.testing.assert_allclose(found, expected, atol=1e-4)  # float32 moments


def test_errors_are_those_of_the_rows(seed: int) -> None:
    weight, whole = weights(48, 7, seed)
    seen, exact = drifting(48, 0.2, seed)
    moments = moments_of(seen, exact)
    for way in drifted_ways(weight, whole, GROUP, moments).values():
        error = moments.output_error(whole, weight - way.floats())
        rows = far(seen, exact, way.floats(), weight, whole) / np.sqrt(len(seen))
        assert error == pytest.approx(rows, rel=1e-3)  # float32 moments


def test_rounding_adds_to_what_no_weight_can_give(seed: int) -> None:
    weight, whole = weights(48, 7, seed)
    seen, exact = drifting(48, 0.3, seed)
    moments = moments_of(seen, exact)
    errors = {
        name: moments.output_error(whole, weight - way.floats())
        for name, way in drifted_ways(weight, whole, GROUP, moments).items()
    }
    assert errors["corrected-gptq"] < 0.9 * errors["gptq"] < errors["nearest"]


def test_singular_moments(seed: int) -> None:
    """Channels that are always zero, two that are always equal, and fewer rows than channels."""
    weight, whole = weights(48, 7, seed)
    seen, exact = (rows[:20].copy() for rows in drifting(48, 0.2, seed))
    seen[:, 7] = 0
    seen[:, 8] = seen[:, 9]
    moments = moments_of(seen, exact)
    corrected = corrected_weight(weight, whole, moments)
    assert np.isfinite(corrected).all()
    np.testing.assert_array_equal(corrected[7], weight[7])
    assert far(seen, exact, corrected, weight, whole) <= far(seen, exact, weight, weight, whole)
    assert moments_of(np.zeros_like(seen), exact).across.any() is np.False_
    dead = corrected_weight(weight, whole, moments_of(np.zeros_like(seen), exact))
    np.testing.assert_array_equal(dead, weight)


def test_nan_in_the_record(seed: int) -> None:
    weight, whole = weights(16, 7, seed)
    seen, exact = drifting(16, 0.2, seed)
    exact[0, 0] = np.nan
    with pytest.raises(PassError) as caught:
        corrected_weight(weight, whole, moments_of(seen, exact))
    assert str(caught.value) == (
        "gptq: the recorded inputs hold NaN or infinity\nfix: build the calibration again"
    )
