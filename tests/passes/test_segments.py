"""Where a graph is cut: each linear's input is known before it is quantized, and nothing is run twice."""

from __future__ import annotations

from tests.passes.graphs import model_of

from latentc.passes.int4_layers import int4_linears
from latentc.passes.segments import Segment, segments_of
from latentc.passes.weights import find_linears

BLOCK = """g (float[B,T,64] x, float[B,64] level) => (float[B,T,64] y)
    <float[64,64] q, float[64,64] k, float[64,64] o, float[64,64] m, float[64,64] t, float[64,64] twice> {
    noise = MatMul (level, m)
    curved = Sigmoid (noise)
    queries = MatMul (x, q)
    keys = MatMul (x, k)
    sum = Add (queries, keys)
    out = MatMul (sum, o)
    shift = MatMul (curved, t)
    shifted = Add (out, shift)
    again = MatMul (shifted, twice)
    y = MatMul (again, twice) }"""


def cut(text: str) -> list[Segment]:
    model = model_of(text)
    return segments_of(model.graph, list(find_linears(model.graph)))


def names(segment: Segment) -> list[str]:
    return [linear.name for linear in segment.linears]


def test_linears_beside_one_another_share_a_segment() -> None:
    segments = cut(BLOCK)
    assert [names(segment) for segment in segments] == [["m", "q", "k"], ["o", "t"], ["twice"]]
    assert [segment.weights for segment in segments] == [(), ("m", "q", "k"), ("o", "t")]


def test_each_segment_runs_what_the_next_linears_read() -> None:
    segments = cut(BLOCK)
    assert [sorted(segment.outputs) for segment in segments] == [
        [],
        ["curved", "keys", "noise", "queries", "sum"],
        ["out", "shift", "shifted"],
    ]
    assert [segment.takes for segment in segments] == [(), ("level", "x"), ("sum", "curved")]
    assert [segment.gives for segment in segments] == [(), ("curved", "sum"), ("shifted",)]
    assert [segment.dropped for segment in segments] == [(), ("level", "x"), ("sum", "curved")]


def test_a_value_is_kept_until_it_was_last_read() -> None:
    segments = cut("""g (float[B,64] x) => (float[B,64] y) <float[64,64] a, float[64,64] b, float[64,64] c> {
        kept = Tanh (x)
        first = MatMul (kept, a)
        second = MatMul (first, b)
        sum = Add (second, kept)
        y = MatMul (sum, c) }""")
    assert [segment.gives for segment in segments] == [("kept",), ("first",), ("sum",)]
    assert [segment.dropped for segment in segments] == [("x",), (), ("first", "kept")]


def test_what_is_made_of_constants_runs_where_it_is_read() -> None:
    segments = cut("""g (float[B,64] x) => (float[B,64] y) <float[64,64] a, float[64] s, float[64,64] b> {
        large = Exp (s)
        first = MatMul (x, a)
        second = Mul (first, large)
        y = MatMul (second, b) }""")
    assert [sorted(segment.outputs) for segment in segments] == [[], ["first", "large", "second"]]
    assert [segment.gives for segment in segments] == [(), ("second",)]


def test_linears_that_are_not_asked_for_run_like_any_node() -> None:
    model = model_of(BLOCK)
    asked = [one for one, why in int4_linears(model.graph, 64, ("q", "k", "m")) if why is None]
    segments = segments_of(model.graph, asked)
    assert [names(segment) for segment in segments] == [["o", "t"], ["twice"]]
    assert [segment.weights for segment in segments] == [(), ("o", "t")]


def test_no_linears_are_no_segments() -> None:
    assert segments_of(model_of(BLOCK).graph, []) == []
