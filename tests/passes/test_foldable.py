"""Inputs with what makes them; and folding into it keeps the function, whatever the transform."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.attention_graphs import BESIDE, JOINED, attention_text
from tests.passes.graphs import inputs_of, model_of, operators, relative_error, run_model

from latentc.passes.channel_transform import ChannelTransform, folded_before
from latentc.passes.foldable import Foldable, fold, foldables
from latentc.passes.makers import Makers
from latentc.passes.rotate import BlockHadamard
from latentc.passes.shared_inputs import SharedInput
from latentc.passes.smooth import ChannelScale
from latentc.passes.weights import OWN_CONSTANTS, find_linears

LINEAR = """g (float[B,T,{0}] x) => (float[B,T,5] y, float[B,T,7] z)
    <float[{0},{1}] w, float[{1}] b, float[{1},5] first, float[{1},7] second, int64[3] flat = {{0, -1, {1}}},
     int64[4] tall = {{0, -1, 1, {1}}}> {{
    p = MatMul (x, w)
    q = Add (p, b)
    r = Reshape (q, tall)
    a = Reshape (r, flat)
    y = MatMul (a, first)
    z = MatMul (a, second) }}"""
NORM = """g (float[B,T,{1}] x) => (float[B,T,5] y, float[B,T,7] z)
    <float[{1}] gamma, float[{1}] beta, float[{1},5] first, float[{1},7] second> {{
    a = LayerNormalization (x, gamma, beta)
    y = MatMul (a, first)
    z = MatMul (a, second) }}"""
MODULATED = """g (float[B,T,{1}] x, float[B,{0}] m) => (float[B,T,5] y, float[B,T,{1}] z)
    <float[{1}] ones, float[{0},{2}] w, float[{2}] b, float one = {{1}}, float[{1},5] first,
     int64[1] tokens = {{1}}> {{
    p = MatMul (m, w)
    q = Add (p, b)
    shift, scale, gate = Split <axis = 1, num_outputs = 3> (q)
    s = Unsqueeze (scale, tokens)
    more = Add (one, s)
    n = LayerNormalization (x, ones)
    product = Mul (n, more)
    h = Unsqueeze (shift, tokens)
    a = Add (product, h)
    y = MatMul (a, first)
    k = Unsqueeze (gate, tokens)
    other = LayerNormalization (x, ones)
    z = Mul (other, k) }}"""
GATED = """g (float[B,T,{0}] x) => (float[B,T,5] y)
    <float[{0},{3}] w, float[{3}] b, float[{1},5] first> {{
    p = MatMul (x, w)
    q = Add (p, b)
    u, g = Split <axis = 2, num_outputs = 2> (q)
    h = Gelu (g)
    a = Mul (u, h)
    y = MatMul (a, first) }}"""
ATTENTION = {
    "self": attention_text(source="x"),
    "cross": attention_text(),
    "unbiased": attention_text(biased=False),
    "joined": JOINED,
}
SIZES = {"B": 2, "T": 3, "S": 5}


def scale(K: int, seed: int) -> ChannelScale:
    drawn = np.random.default_rng(seed).normal(0, 1.5, K)
    return ChannelScale(np.exp(drawn).astype(np.float32))


def found_in(graph: ir.Graph, names: str, skip: tuple[str, ...] = ()) -> Foldable:
    """What is found for the linears ``names``; in these small graphs every linear counts."""
    read: dict[ir.Value, SharedInput] = {}
    for linear in find_linears(graph):
        value = linear.nodes[0].inputs[0]
        assert value is not None
        before = read[value].linears if value in read else ()
        read[value] = SharedInput(value, (*before, linear))
    return next(one for one in foldables(graph, list(read.values()), skip) if one.names == names)


def check(text: str, names: str, transform: ChannelTransform, seed: int) -> None:
    """Fold ``transform`` into what makes the input of linears ``names``: no node more, the same function."""
    model = model_of(text)
    after = model.clone()
    found = found_in(after.graph, names)
    assert isinstance(found.makers, Makers), found.makers
    fold(after.graph, found.inputs, found.makers, transform, "some-pass")
    assert operators(after) == operators(model)
    for shared in found.inputs:
        assert all(folded_before(node, "test") == (transform,) for node in shared.nodes)
    feeds = inputs_of(model, SIZES, seed)
    if "middle" in feeds:
        feeds["middle"] = np.array([2])  # tokens on both sides
    with tempfile.TemporaryDirectory() as folder:
        seen, wanted = (run_model(one, Path(folder), feeds) for one in (after, model))
    assert max(relative_error(one, other) for one, other in zip(seen, wanted, strict=True)) < 1e-5


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_a_linear_directly_before(inner: int, blocks: int, seed: int) -> None:
    K = 4 * blocks
    text = LINEAR.format(inner, K)
    check(text, "first, second", scale(K, seed), seed)
    check(text, "first, second", BlockHadamard(4), seed)


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_a_norm(K: int, seed: int) -> None:
    check(NORM.format(0, K), "first, second", scale(K, seed), seed)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(2, 12), st.integers(0, 1000))
def test_a_modulated_norm(inner: int, K: int, seed: int) -> None:
    check(MODULATED.format(inner, K, 3 * K), "first", scale(K, seed), seed)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(2, 12), st.integers(0, 1000))
def test_a_gated_feed_forward(inner: int, K: int, seed: int) -> None:
    check(GATED.format(inner, K, 0, 2 * K), "first", scale(K, seed), seed)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("self", "out_weight"),
        ("cross", "out_weight"),
        ("unbiased", "out_weight"),
        ("joined", "xo_weight, yo_weight"),
    ],
)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000))
def test_attention(kind: str, names: str, seed: int) -> None:
    check(ATTENTION[kind], names, scale(32, seed), seed)
    for size in (2, 4, 8):
        check(ATTENTION[kind], names, BlockHadamard(size), seed)


def test_the_other_norms_keep_their_vector_of_ones(seed: int) -> None:
    model = model_of(MODULATED.format(4, 8, 24))
    found = found_in(model.graph, "first")
    assert isinstance(found.makers, Makers)
    fold(model.graph, found.inputs, found.makers, scale(8, seed), "some-pass")
    norm, other = [node for node in model.graph if node.op_type == "LayerNormalization"]
    assert [one.inputs[1].name for one in (norm, other) if one.inputs[1]] == ["n.some-pass.1", "ones"]
    assert norm.metadata_props[OWN_CONSTANTS] == "1"
    assert OWN_CONSTANTS not in other.metadata_props


def test_a_number_becomes_a_vector(seed: int) -> None:
    """Where nothing but 1 + scale takes it: the norm is written out, its sides are read by others."""
    text = """g (float[B,T,8] x, float[B,T,6] m) => (float[B,T,5] y)
    <float[6,8] w, float one = {1}, float[8,5] first> {
    s = MatMul (m, w)
    more = Add (one, s)
    n = Sin (x)
    a = Mul (n, more)
    y = MatMul (a, first) }"""
    check(text, "first", scale(8, seed), seed)
    model = model_of(text)
    found = found_in(model.graph, "first")
    assert str(found.makers) == "w, one (a copy)"


def test_readers_of_one_attention_go_together_or_not_at_all() -> None:
    graph = model_of(JOINED).graph
    both = found_in(graph, "xo_weight, yo_weight")
    assert str(both.makers) == "xv_weight, xv_bias, yv_weight, yv_bias"
    only = [one for one in both.inputs if one.names == "xo_weight"]
    (alone,) = foldables(graph, only, ())
    assert alone == Foldable(tuple(only), "'yo_weight', which stays as it is, reads the same attention")
    for names in ("xo_weight", "yo_weight"):
        assert found_in(graph, names, ("xv*",)).makers == "'xv_weight' matches skip"


def test_other_channels_beside_attention() -> None:
    assert found_in(model_of(BESIDE).graph, "out_weight").makers == "'all' is a Concat"


def test_weights_stay_lazy_and_those_of_the_model_before_stay(seed: int) -> None:
    model = model_of(GATED.format(4, 8, 0, 16))
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    after = model.clone()
    found = found_in(after.graph, "first")
    assert isinstance(found.makers, Makers)
    fold(after.graph, found.inputs, found.makers, scale(8, seed), "some-pass")
    for name, value in after.graph.initializers.items():
        assert isinstance(value.const_value, ir.LazyTensor)
        assert model.graph.initializers[name].const_value is before[name]
