"""Call work: products are counted as they are stored, and a roofline makes seconds of them."""

from collections import Counter

import pytest
from tests.compiler.traces import block, traced

from latentc.compiler.forecast.call_work import Kind, Rates, Work, rates_of, works_of
from latentc.compiler.forecast.passes import foretell
from latentc.compiler.forecast.weightless_graph import weightless_graph
from latentc.passes.pass_text import pass_from_text
from latentc.recipes.roofline import orin

RATES = Rates(dict.fromkeys(Kind, 1.0), 1.0, overlaps=False, node_us=0.0, float_bytes=4, fuses=True)


def works(*texts: str, fuses: bool = False) -> tuple[Work, ...]:
    graph = weightless_graph(traced(block(), 1, 16, 128), "block")
    return works_of(foretell(graph, [pass_from_text(text) for text in texts]), fuses=fuses)


def test_every_kind_of_product_is_counted() -> None:
    found = works()
    kinds = Counter(work.kind for work in found)
    assert kinds[Kind.FLOAT_LINEAR] == 3
    assert kinds[Kind.FLOAT_CONVOLUTION] == kinds[Kind.ATTENTION] == 1
    linears = [work for work in found if work.kind is Kind.FLOAT_LINEAR]
    assert {work.operations for work in linears} == {2 * 16 * 128 * 128}
    (convolution,) = (work for work in found if work.kind is Kind.FLOAT_CONVOLUTION)
    assert convolution.operations == 2 * 16 * 64 * 128 * 3
    (attention,) = (work for work in found if work.kind is Kind.ATTENTION)
    assert (attention.operations, attention.scores) == (4 * 16 * 16 * 128, 2 * 16 * 16)


def test_what_passes_stored_is_read_as_it_is() -> None:
    found = works("quantize-int8", "split-low-rank{rank=8,max_ratio=0.5}", "quantize-int4")
    kinds = Counter(work.kind for work in found)
    assert (kinds[Kind.INT4_LINEAR], kinds[Kind.INT8_LINEAR], kinds[Kind.INT8_CONVOLUTION]) == (3, 6, 1)
    inward = [work for work in found if work.kind is Kind.INT8_LINEAR and work.weights == 128 * 8]
    assert {work.operations for work in inward} == {2 * 16 * 128 * 8}, "branches have the linear's rows"


def test_a_compiler_leaves_out_what_it_fuses() -> None:
    assert len(works(fuses=True)) < len(works())


def test_seconds_are_arithmetic_and_moving() -> None:
    work = Work(Kind.INT8_LINEAR, 2_000_000_000, 250_000_000, 1, 1_000_000_000)
    assert RATES.seconds([work]) == pytest.approx(2 + 1 + 1)
    assert RATES.seconds([work], pictures=2) == pytest.approx(4 + 2 + 1), "weights are read once"


def test_an_orin_multiplies_integers_twice_as_fast() -> None:
    rates = rates_of(orin(8, 1.0, 100.0), 2, fuses=True)
    assert rates.gops[Kind.INT8_CONVOLUTION] == 2 * rates.gops[Kind.FLOAT_CONVOLUTION]
    assert rates.gops[Kind.INT4_LINEAR] == rates.gops[Kind.FLOAT_LINEAR]
