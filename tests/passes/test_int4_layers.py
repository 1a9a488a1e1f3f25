import pytest
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.int4_layers import int4_linears, other_weights, require_canonical_linears

GRAPH = """g (float[B,128] x, int64[B] ids) => (float[B,64] y, float[B,64] rows)
    <float[128,128] good, float[128,100] wide, float[100,64] uneven, float[64,32] small, float[32,128] low,
     float[128,64] tied, float[64,64] table> {
    a = MatMul (x, good)
    b = MatMul (a, wide)
    c = MatMul (b, uneven)
    d = MatMul (c, small)
    e = MatMul (d, low)
    y = MatMul (e, tied)
    turned = Transpose (tied)
    more = MatMul (c, turned)
    rows = Gather (table, ids) }"""


def test_who_is_taken_and_why_the_others_are_not() -> None:
    found = {
        linear.name: None if refusal is None else refusal.why
        for linear, refusal in int4_linears(model_of(GRAPH).graph, 64, ("goo[d]",))
    }
    assert found == {
        "good": "matches skip",
        "wide": None,
        "uneven": "its 100 inputs are no multiple of the group, 64",
        "small": "has 2048 weights, fewer than 4096: the nodes around it would cost more than it saves",
        "low": "its 32 inputs are no multiple of the group, 64",
        "tied": "is also read by Transpose",
    }


def test_what_is_no_linear_is_named() -> None:
    assert [refusal.where for refusal in other_weights(model_of(GRAPH).graph)] == ["table"]


def test_a_gemm_is_refused() -> None:
    model = model_of("g (float[B,8] x) => (float[B,8] y) <float[8,8] w> { y = Gemm (x, w) }")
    with pytest.raises(PassError) as caught:
        require_canonical_linears("some-pass", model)
    assert str(caught.value) == (
        "some-pass: 'y' is a Gemm, wanted MatMul and Add\nfix: run canonicalize before this pass"
    )
