"""GPTQ against its definition: rows rounded in turn, the rest fitted again by least squares in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentc.errors import PassError
from latentc.passes.gptq import DAMPING, gptq_codes, row_factor
from latentc.passes.int4_weight import Int4Weight, int4_weight
from latentc.passes.weights import Floats

GROUP = 16


def inputs(K: int, seed: int) -> Floats:
    """Correlated rows [4 K, K], some channels much larger than others."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((K, K)) * np.exp(generator.standard_normal(K))
    return (generator.standard_normal((4 * K, K)) @ mixing).astype(np.float32)


def made(K: int, N: int, seed: int) -> tuple[Floats, Floats, Int4Weight]:
    weight = np.random.default_rng(seed + 1).standard_normal((K, N)).astype(np.float32)
    rows = inputs(K, seed)
    return weight, rows.T @ rows / np.float32(len(rows)), int4_weight(weight, GROUP)


def output_error(weight: Floats, quantized: Floats, moments: Floats) -> float:
    error = (weight - quantized).astype(np.float64)
    return float(np.vdot(moments.astype(np.float64) @ error, error))


def by_definition(weight: Floats, steps: Floats, moments: Floats) -> np.ndarray:
    """Round one row, then choose all later rows anew so that the output's error is least."""
    K = len(weight)
    damped = moments.astype(np.float64)
    damped = damped + DAMPING * np.trace(damped) / K * np.eye(K)
    sizes = np.repeat(steps, GROUP, axis=0).astype(np.float64)
    order = list(np.argsort(-np.diagonal(moments), kind="stable"))
    quantized, codes = weight.astype(np.float64), np.zeros(weight.shape, np.int8)
    for place, row in enumerate(order):
        codes[row] = np.clip(np.rint(quantized[row] / sizes[row]), -8, 7)
        quantized[row] = codes[row] * sizes[row]
        done, later = order[: place + 1], order[place + 1 :]
        if later:
            # least squares: H_ll (w_l - q_l) = -H_ld (w_d - q_d)
            owed = damped[np.ix_(later, done)] @ (weight[done] - quantized[done])
            quantized[later] = weight[later] + np.linalg.solve(damped[np.ix_(later, later)], owed)
    return codes


@pytest.mark.parametrize(("K", "N"), [(16, 3), (48, 8), (144, 5)])
def test_it_is_what_the_definition_gives(K: int, N: int, seed: int) -> None:
    weight, moments, nearest = made(K, N, seed)
    ours = gptq_codes(weight, nearest.steps, row_factor(moments))
    theirs = by_definition(weight, nearest.steps, moments)
    # float32 against float64: a value on the edge between two codes may fall to either side
    assert (ours != theirs).mean() < 0.02
    assert output_error(weight, Int4Weight(ours, nearest.steps).floats(), moments) == pytest.approx(
        output_error(weight, Int4Weight(theirs, nearest.steps).floats(), moments), rel=0.02
    )


def test_the_factor_is_that_of_the_inverse(seed: int) -> None:
    moments = made(144, 1, seed)[1]
    rows = row_factor(moments)
    assert (np.diff(np.diagonal(moments)[rows.order]) <= 0).all()
    assert (rows.factor == np.triu(rows.factor)).all()
    damped = moments[np.ix_(rows.order, rows.order)].astype(np.float64)
    damped += DAMPING * np.trace(damped) / len(damped) * np.eye(len(damped))
    whole = rows.factor.astype(np.float64).T @ rows.factor @ damped
    # float32 entries of the factor, and a condition number of some thousands
    np.testing.assert_allclose(whole, np.eye(144), atol=2e-3)


def test_columns_and_their_parts_are_rounded_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moments, nearest = made(144, 50, seed)
    whole = gptq_codes(weight, nearest.steps, row_factor(moments))
    monkeypatch.setattr("latentc.passes.gptq._COLUMNS", 16)
    parts = gptq_codes(weight, nearest.steps, row_factor(moments))
    assert (whole != parts).mean() < 0.001  # products of other widths add up in another order


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 1000))
def test_codes_are_in_range_and_better_than_the_nearest(groups: int, N: int, number: int) -> None:
    weight, moments, nearest = made(groups * GROUP, N, number)
    codes = gptq_codes(weight, nearest.steps, row_factor(moments))
    assert codes.min() >= -8
    assert codes.max() <= 7
    ours = output_error(weight, Int4Weight(codes, nearest.steps).floats(), moments)
    assert ours <= 1.05 * output_error(weight, nearest.floats(), moments)


def test_independent_inputs_leave_nothing_to_make_up_for(seed: int) -> None:
    weight, _, nearest = made(48, 8, seed)
    codes = gptq_codes(weight, nearest.steps, row_factor(np.eye(48, dtype=np.float32)))
    np.testing.assert_array_equal(codes, nearest.codes)


def test_inputs_that_were_always_zero(seed: int) -> None:
    weight, moments, nearest = made(48, 8, seed)
    moments[:, 7] = moments[7] = 0
    codes = gptq_codes(weight, nearest.steps, row_factor(moments))
    np.testing.assert_array_equal(codes[7], nearest.codes[7])
    assert (gptq_codes(weight, nearest.steps, row_factor(np.zeros_like(moments))) == nearest.codes).all()


def test_nan_in_the_record() -> None:
    moments = made(16, 2, 0)[1]
    moments[3, 4] = np.nan
    with pytest.raises(PassError) as caught:
        row_factor(moments)
    assert str(caught.value) == (
        "gptq: the recorded inputs hold NaN or infinity\nfix: build the calibration again"
    )
