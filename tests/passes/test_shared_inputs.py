"""Linears by what they read, and the reasons to leave some alone."""

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.shared_inputs import shared_inputs
from latentc.passes.weights import Floats

GRAPH = """g (float[B,64] x, float[B,64] q) => (float[B,64] y, float[B,64] z, float[B,64] a, float[B,64] b)
    <float[64,64] w, float[64,64] v, float[64,64] twice, float[64,8] small> {
    y = MatMul (x, w)
    z = MatMul (x, v)
    a = MatMul (x, twice)
    b = MatMul (q, twice)
    c = MatMul (x, small)
}"""
SEEN = "latentc.seen"


def test_linears_by_what_they_read() -> None:
    model = model_of(GRAPH)
    found = list(shared_inputs(model.graph, 64, (), SEEN))
    assert [(shared.names, None if why is None else why.why.split(",")[0]) for shared, why in found] == [
        ("twice", "multiplies several values"),
        ("small", "has 512 weights"),
        ("w, v", None),
    ]
    shared = found[-1][0]
    assert [node.name or node.outputs[0].name for node in shared.nodes] == ["y", "z"]
    weight = shared.weight("some-pass")
    first = model.graph.initializers["w"].const_value
    assert first is not None
    np.testing.assert_array_equal(weight[:, :64], first.numpy())
    assert weight.shape == (64, 128)
    shared.mark(SEEN, "some-pass")
    again = {entry.names: why.why for entry, why in shared_inputs(model.graph, 64, (), SEEN) if why}
    assert again["w"] == again["v"] == "was considered already"


def test_a_weight_that_is_not_finite() -> None:
    model = model_of(GRAPH)
    weight = np.zeros((64, 64), np.float32)
    weight[0, 0] = np.inf
    model.graph.initializers["v"].const_value = ir.tensor(weight, name="v")
    shared = next(one for one, why in shared_inputs(model.graph, 64, (), SEEN) if why is None)
    with pytest.raises(PassError) as caught:
        shared.weight("some-pass")
    assert str(caught.value) == "some-pass: 'v' holds NaN or infinity\nfix: check the checkpoint"


def test_inputs_and_weights_are_rewritten_and_the_rest_is_not() -> None:
    model = model_of(GRAPH)
    shared = next(one for one, why in shared_inputs(model.graph, 64, (), SEEN) if why is None)
    old = shared.weight("some-pass")
    called: list[tuple[int, ...]] = []

    def negative(weight: Floats) -> Floats:
        called.append(weight.shape)
        return -weight

    negation = ir.node("Neg", [shared.value])
    shared.rewrite(model.graph, [negation], negative, "some-pass")
    assert called == []  # weights are lazy
    assert [node.op_type for node in model.graph] == ["Neg", *["MatMul"] * 5]
    readers = {use.node.outputs[0].name for use in negation.outputs[0].uses()}
    assert readers == {"y", "z"}
    new = next(one for one, why in shared_inputs(model.graph, 64, (), SEEN) if why is None)
    assert new.names == "w, v"
    np.testing.assert_array_equal(new.weight("some-pass"), -old)
    assert called == [(64, 64), (64, 64)]


def test_weights_alone_are_rewritten() -> None:
    model = model_of(GRAPH)
    shared = next(one for one, why in shared_inputs(model.graph, 64, (), SEEN) if why is None)
    old = shared.weight("some-pass")
    shared.reweigh(model.graph, lambda weight: weight * 2, "some-pass")
    new = next(one for one, why in shared_inputs(model.graph, 64, (), SEEN) if why is None)
    assert (new.names, new.value) == ("w, v", shared.value)
    np.testing.assert_array_equal(new.weight("some-pass"), old * 2)
