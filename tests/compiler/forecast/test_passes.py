"""Foretold passes: on a graph without weights they leave what they leave on one with weights."""

import onnx_ir as ir
import pytest
from tests.compiler.traces import block, traced

from latentc.compiler.forecast.passes import foretell
from latentc.compiler.forecast.weightless_graph import weightless_graph
from latentc.errors import PassError
from latentc.passes.allotment import Allotment, Precision
from latentc.passes.base import Pass
from latentc.passes.low_rank import BranchType
from latentc.passes.pass_text import pass_from_text
from latentc.passes.weight_bytes import weigh
from latentc.passes.weights import constant

WHOLE = 3 * 128 * 128


def stored(*texts: str) -> ir.Model:
    passes: list[Pass] = [pass_from_text(text) for text in texts]
    return foretell(weightless_graph(traced(block(), 1, 16, 128), "block"), passes)


def of_each(allotment: Allotment) -> int:
    return allotment.weight_bytes(128, 128, 64, BranchType.INT8)


@pytest.mark.parametrize("rounding", ["nearest", "gptq", "scale-estimation"])
def test_rounding_changes_no_bytes(rounding: str) -> None:
    model = stored("canonicalize", f"quantize-int4{{rounding={rounding}}}")
    assert weigh(model).quantized_bytes == 3 * of_each(Allotment(Precision.INT4))


def test_branches_have_the_rank_that_fits() -> None:
    model = stored("split-low-rank{rank=8,max_ratio=0.5,rounding=gptq}", "quantize-int4{rounding=gptq}")
    assert weigh(model).quantized_bytes == 3 * of_each(Allotment(Precision.INT4, 8))


def test_a_plan_is_followed() -> None:
    plan = 'allocate{plan=["q.weight=int8","k.weight=int4+4","v.weight=float"]}'
    model = stored(plan, "split-low-rank", "quantize-int8-weights", "quantize-int4")
    rest = Allotment(Precision.INT8), Allotment(Precision.INT4, 4)
    assert weigh(model).quantized_bytes == sum(map(of_each, rest)) + 4 * 128 * 128


def test_a_budget_is_nearly_spent() -> None:
    model = stored("allocate{max_ratio=0.4}", "split-low-rank{optional=true}", "quantize-int8-weights",
                   "quantize-int4")  # fmt: skip
    spent = weigh(model).quantized_bytes / (2 * WHOLE)
    assert 0.3 < spent <= 0.4, "one of three linears gets INT8, a second one does not fit"


def test_convolutions_become_codes_with_a_step_an_output() -> None:
    model = stored("quantize-int8")
    codes = constant(model.graph.initializers["conv.weight.codes"])
    steps = constant(model.graph.initializers["conv.weight.steps"])
    assert codes is not None
    assert steps is not None
    assert (codes.nbytes, steps.nbytes) == (64 * 128 * 3, 2 * 64)


def test_a_subspace_is_stored_once_for_all_that_share_it() -> None:
    model = stored("split-subspace{directions=4}", "quantize-int4")
    directions = 4 * 128 + 2 * 4
    along = 3 * (4 * 128 + 2)
    kept_apart = 4
    spent = weigh(model).quantized_bytes
    assert spent == 3 * of_each(Allotment(Precision.INT4)) + directions + along + kept_apart


def test_what_looks_at_values_alone_stores_nothing() -> None:
    plain, judged = stored("quantize-int4"), stored("smooth", "rotate", "quantize-int4")
    assert weigh(plain) == weigh(judged)


def test_a_pass_that_does_not_fit_says_so() -> None:
    with pytest.raises(PassError, match=r"rank 512 is larger than the smallest side of 'q.weight' \(128\)"):
        stored("split-low-rank{rank=512}")
