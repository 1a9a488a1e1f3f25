"""Trace: operations are counted, and text gives the same trace back."""

import pytest
from tests.compiler.traces import block, traced

from latentc.compiler.forecast.trace import Trace, TracedNode, TracedValue, trace_from_json, trace_to_json
from latentc.errors import InternalError


def test_text_gives_the_same_trace_back() -> None:
    trace = traced(block(), 1, 16, 128)
    assert trace_from_json(trace_to_json(trace)) == trace


def test_products_are_counted_in_multiplications_and_additions() -> None:
    trace = Trace(
        {"w": (8, 4), "k": (6, 3, 3, 3)},
        (
            TracedValue((2, 5, 4), 4),
            TracedValue((2, 5, 8), 4),
            TracedValue((1, 6, 10, 10), 4),
            TracedValue((1, 2, 5, 16), 4),
        ),
        (0,),
        (3,),
        (),
        0,
        1,
    )
    linear = TracedNode("linear", (0, "w"), (1,))
    convolution = TracedNode("conv2d", (0, "k"), (2,))
    attention = TracedNode("scaled_dot_product_attention", (3, 3, 3), (3,))
    addition = TracedNode("add", (0, 0), (0,))
    assert [trace.operations(node) for node in (linear, convolution, attention, addition)] == [
        2 * 10 * 4 * 8,
        2 * 600 * 27,
        4 * 2 * 5 * 5 * 16,
        0,
    ]
    assert trace.parameters == 32 + 162


@pytest.mark.parametrize("text", ["{", '{"format": 0}', '{"format": 1}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InternalError):
        trace_from_json(text)
