"""The linears around a GELU."""

from tests.passes.graphs import model_of

from latentc.passes.feed_forward import feed_forward_linears

GATED = """g (float[B,T,16] x) => (float[B,T,16] y, float[B,T,40] all)
    <float[16,64] up, float[64] bias, float[32,16] down, float[16,24] wide, float[16,16] other> {
    a0 = MatMul (x, up)
    a = Add (a0, bias)
    left, right = Split <axis = 2, num_outputs = 2> (a)
    gate = Gelu (right)
    inner = Mul (left, gate)
    b = MatMul (inner, down)
    y = MatMul (b, other)
    c = MatMul (x, wide)
    d = Gelu (c)
    all = Concat <axis = 2> (x, d) }"""


def test_gates_and_biases_may_lie_between() -> None:
    assert [linear.name for linear in feed_forward_linears(model_of(GATED).graph)] == ["up", "down", "wide"]
