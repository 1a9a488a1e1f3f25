"""Allotments read back what they print, and their bytes are those of what the passes write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.allocate import Allocate
from latentc.passes.allotment import Allotment, Precision, allotment_from_text
from latentc.passes.base import Pass, PassContext
from latentc.passes.low_rank import BranchType
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights
from latentc.passes.sequence import run_passes
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weight_bytes import weigh

LINEAR = "g (float[B,128] x) => (float[B,64] y) <float[128,64] w> { y = MatMul (x, w) }"

allotments = some.one_of(
    some.sampled_from([Allotment(precision) for precision in Precision]),
    some.builds(Allotment, some.just(Precision.INT4), some.integers(0, 9999), some.integers(0, 9999)),
)


@given(allotments)
def test_text_and_back(allotment: Allotment) -> None:
    assert allotment_from_text(str(allotment), "here") == allotment


@pytest.mark.parametrize(
    "text", ["", "int5", "int8+4", "int4+0", "int4+", "float+2", "int4+16 ", "int8@4", "int4+4@8"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(PassError) as caught:
        allotment_from_text(text, "allocate.plan: 'w'")
    assert str(caught.value) == (
        f"allocate.plan: 'w': '{text}' is no allotment\nfix: write float, int8, int4, int4+16 or int4@8+16"
    )


@pytest.mark.parametrize("branch", list(BranchType))
@pytest.mark.parametrize("text", ["int8", "int4", "int4+5"])
def test_bytes_are_those_that_are_written(text: str, branch: BranchType) -> None:
    passes: list[Pass] = [
        Allocate(plan=(f"w={text}",)),
        SplitLowRank(branch=branch, calibrated=False, optional=True),
        QuantizeInt8Weights(optional=True),
        QuantizeInt4(optional=True),
    ]
    model, _ = run_passes(model_of(LINEAR), passes, PassContext())
    foretold = allotment_from_text(text, "w").weight_bytes(128, 64, 64, branch)
    assert weigh(model).quantized_bytes == foretold
    assert weigh(model).quantized_fp16_bytes == 2 * 128 * 64


def test_a_linear_that_stays_float_counts_with_the_others() -> None:
    model, _ = run_passes(model_of(LINEAR), [Allocate(plan=("w=float",))], PassContext())
    assert weigh(model).quantized_fp16_bytes == 2 * 128 * 64
