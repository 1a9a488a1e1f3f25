import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentc.errors import InternalError
from latentc.validation.tensor_metrics import (
    SQNR_CAP_DB,
    cosine,
    count_not_finite,
    relative_error,
    sqnr_db,
)

Floats = npt.NDArray[np.float32]

VALUES = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
SHAPES = hnp.array_shapes(max_dims=3, max_side=6)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Floats, Floats]:
    shape = draw(SHAPES)
    arrays = hnp.arrays(np.float32, shape, elements=VALUES)
    return draw(arrays), draw(arrays)


@given(pairs())
def test_relative_error_is_the_naive_quotient(pair: tuple[Floats, Floats]) -> None:
    actual, reference = (array.astype(np.float64) for array in pair)
    norm = math.sqrt(math.fsum(reference.ravel() ** 2))
    error = math.sqrt(math.fsum((actual - reference).ravel() ** 2))
    value = relative_error(*pair)
    if error == 0:
        assert value == 0
    elif norm == 0:
        assert value == math.inf
    else:
        # both are float64; they differ by the order of at most 216 sums and one scaling
        assert value == pytest.approx(error / norm, rel=1e-9)


@given(pairs())
def test_sqnr_is_relative_error_in_db(pair: tuple[Floats, Floats]) -> None:
    error, db = relative_error(*pair), sqnr_db(*pair)
    if error == 0:
        assert db == SQNR_CAP_DB
    elif error == math.inf:
        assert db == -SQNR_CAP_DB
    else:
        # -20 log10 of a value that is right to 1e-9
        assert db == pytest.approx(max(-SQNR_CAP_DB, min(SQNR_CAP_DB, -20 * math.log10(error))), abs=1e-6)


@given(pairs())
def test_cosine_is_symmetric_and_bounded(pair: tuple[Floats, Floats]) -> None:
    actual, reference = pair
    value = cosine(actual, reference)
    assert -1 <= value <= 1
    # the same products summed in the same order
    assert value == cosine(reference, actual)


@given(hnp.arrays(np.float32, SHAPES, elements=VALUES))
def test_equal_arrays_are_equal(array: Floats) -> None:
    assert (relative_error(array, array), sqnr_db(array, array)) == (0, SQNR_CAP_DB)
    # a unit vector's length in float64
    assert cosine(array, array) == pytest.approx(1, abs=1e-12)


@given(pairs(), st.sampled_from([2.0**-20, 0.5, 2.0, 2.0**30]))
def test_no_metric_depends_on_the_scale_of_both(pair: tuple[Floats, Floats], scale: float) -> None:
    scaled = tuple(array.astype(np.float64) * scale for array in pair)
    for metric in (relative_error, sqnr_db, cosine):
        # a power of two only moves exponents
        assert metric(scaled[0], scaled[1]) == pytest.approx(metric(*pair), rel=1e-12, abs=1e-12)


def test_halving_the_error_gains_six_db() -> None:
    reference = np.linspace(-1, 1, 99)
    gain = sqnr_db(reference + 0.005, reference) - sqnr_db(reference + 0.01, reference)
    assert gain == pytest.approx(20 * math.log10(2), abs=1e-9)  # float64 rounding of 0.005 and 0.01


def test_cosine_of_right_angles_and_opposites() -> None:
    assert cosine(np.array([1.0, 0.0]), np.array([0.0, 5.0])) == 0
    assert cosine(np.array([1.0, 2.0]), np.array([-2.0, -4.0])) == -1
    assert cosine(np.zeros(3), np.zeros(3)) == 1
    assert cosine(np.zeros(3), np.ones(3)) == 0


def test_huge_and_tiny_values_neither_overflow_nor_vanish() -> None:
    huge, tiny = np.array([1e200, -1e200]), np.array([1e-200, 1e-200])
    assert cosine(huge, huge) == pytest.approx(1, abs=1e-15)
    assert relative_error(tiny * 2, tiny) == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", [relative_error, sqnr_db, cosine])
def test_what_is_not_finite_makes_every_metric_nan(metric: type, broken: float) -> None:
    good, bad = np.ones(4), np.array([1.0, broken, 1.0, 1.0])
    assert math.isnan(metric(bad, good))
    assert math.isnan(metric(good, bad))
    assert math.isnan(metric(bad, bad))


def test_count_not_finite() -> None:
    assert count_not_finite(np.array([1.0, math.nan, math.inf, -math.inf])) == 3
    assert count_not_finite(np.arange(4)) == 0


@pytest.mark.parametrize("metric", [relative_error, sqnr_db, cosine])
def test_other_shapes_are_our_own_mistake(metric: type) -> None:
    with pytest.raises(InternalError) as caught:
        metric(np.ones(3), np.ones((3, 1)))
    assert str(caught.value) == "metric: compares shapes [3] and [3, 1]\nfix: compare equal shapes"
