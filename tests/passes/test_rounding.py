"""The two ways to choose codes, and what a branch gains when it knows which one comes."""

from __future__ import annotations

import numpy as np
import pytest

from latentc.errors import PassError
from latentc.passes.gptq import gptq_codes, row_factor
from latentc.passes.int4_weight import int4_weight
from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.moments import output_norm
from latentc.passes.rounding import Rounding, rounded_weight, scale_estimated_weight
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weights import Floats


def made(seed: int) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((128, 96)).astype(np.float32)
    mixing = generator.standard_normal((128, 128)) * np.exp(generator.standard_normal(128))
    rows = (generator.standard_normal((600, 128)) @ mixing).astype(np.float32)
    return weight, rows.T @ rows / np.float32(600)


def test_each_way_is_its_own_file(seed: int) -> None:
    weight, moments = made(seed)
    nearest = int4_weight(weight, 64)
    np.testing.assert_array_equal(rounded_weight(weight, 64, Rounding.NEAREST, None).codes, nearest.codes)
    fitted = rounded_weight(weight, 64, Rounding.GPTQ, row_factor(moments))
    np.testing.assert_array_equal(fitted.steps, nearest.steps)
    np.testing.assert_array_equal(fitted.codes, gptq_codes(weight, nearest.steps, row_factor(moments)))


@pytest.mark.parametrize("number", range(3))
def test_a_branch_that_knows_of_gptq_leaves_it_no_more_to_lose(seed: int, number: int) -> None:
    weight, moments = made(seed + number)
    errors = {}
    for rounding in (Rounding.NEAREST, Rounding.GPTQ):
        branch = low_rank_branch(weight, 16, BranchType.INT8, 64, 12, moments, rounding).product()
        rest = weight - branch
        held = rounded_weight(rest, 64, Rounding.GPTQ, row_factor(moments)).floats()
        errors[rounding] = output_norm(rest - held, moments)
    assert errors[Rounding.GPTQ] <= 1.01 * errors[Rounding.NEAREST]  # chosen on damped moments


def test_gptq_needs_records(seed: int) -> None:
    with pytest.raises(PassError) as caught:
        rounded_weight(made(seed)[0], 64, Rounding.GPTQ, None)
    assert str(caught.value) == ("gptq: needs recorded inputs, and there are none\nfix: set calibrated=true")
    with pytest.raises(PassError) as caught:
        SplitLowRank(calibrated=False, rounding=Rounding.GPTQ)
    assert str(caught.value) == (
        "split-low-rank.rounding: is gptq, which needs recorded inputs\nfix: write calibrated=true"
    )


def test_scale_estimation_weighs_channels_by_what_they_bring(seed: int) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((128, 48)).astype(np.float32)
    loud = np.exp(generator.standard_normal(128)).astype(np.float32)
    fit, other = (generator.standard_normal((512, 128)).astype(np.float32) * loud for _ in range(2))
    held = scale_estimated_weight(weight, 64, fit)
    errors = [np.linalg.norm(other @ (one.floats() - weight)) for one in (held, int4_weight(weight, 64))]
    assert errors[0] < 0.95 * errors[1]
    assert (held.steps > 0).all()
    np.testing.assert_array_equal(held.steps, held.steps.astype(np.float16).astype(np.float32))


def test_scale_estimation_is_of_quantize_int4_alone(seed: int) -> None:
    weight, moments = made(seed)
    with pytest.raises(PassError) as caught:
        rounded_weight(weight, 64, Rounding.SCALE_ESTIMATION, row_factor(moments))
    assert str(caught.value) == (
        "rounding: scale-estimation is of quantize-int4 alone\nfix: write gptq or nearest"
    )
    with pytest.raises(PassError) as caught:
        SplitLowRank(rounding=Rounding.SCALE_ESTIMATION)
    assert str(caught.value) == (
        "split-low-rank.rounding: scale-estimation is of quantize-int4 alone\nfix: write gptq or nearest"
    )
