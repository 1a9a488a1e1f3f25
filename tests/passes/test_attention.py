"""Attention is found with its linears, and what breaks the pattern is named."""

from __future__ import annotations

import pytest
from tests.passes.attention_graphs import BESIDE, JOINED, attention_model, attention_text
from tests.passes.graphs import model_of

from latentc.passes.attention import Attention, Scores, Values, find_attentions


def only(text: str) -> Attention:
    (found,) = find_attentions(model_of(text).graph)
    return found


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("source", ["x", "y"])
def test_all_four_linears(biased: bool, source: str) -> None:
    (found,) = find_attentions(attention_model(biased=biased, source=source).graph)
    assert isinstance(found.scores, Scores)
    assert isinstance(found.values, Values)
    scores, values = found.scores, found.values
    assert (scores.queries.name, scores.keys.name) == ("q_weight", "k_weight")
    assert scores.scale == pytest.approx(8**-0.5, rel=1e-6)  # stored as float32
    assert [source.name for source in values.sources] == ["v_weight"]
    assert [reader.name for reader in values.readers] == ["out_weight"]
    assert scores.heads == values.heads == (4, 8)
    assert (scores.keys.bias is None, values.readers[0].bias is None) == (not biased, not biased)
    assert found.name == "mixed"  # the weights' names share no beginning


def test_the_name_is_what_the_weights_names_begin_with() -> None:
    model = attention_model()
    for part in "qkv":
        model.graph.initializers[f"{part}_weight"].name = f"block.attn.to_{part}.weight"
    (found,) = find_attentions(model.graph)
    assert found.name == "block.attn"


@pytest.mark.parametrize(
    ("between", "why"),
    [
        ("norm", "queries and keys are normalized (QK-norm) before they meet"),
        ("rotation", "queries and keys are turned by their positions (RoPE) before they meet"),
    ],
)
def test_what_stands_between_queries_and_keys(between: str, why: str) -> None:
    found = only(attention_text(between=between))
    assert found.scores == why
    assert isinstance(found.values, Values)


def test_two_streams_and_their_readers() -> None:
    found = only(JOINED)
    assert found.scores == "'qh' is read by others as well"
    assert isinstance(found.values, Values)
    assert [source.name for source in found.values.sources] == ["xv_weight", "yv_weight"]
    assert [(reader.name, reader.value.name) for reader in found.values.readers] == [
        ("xo_weight", "zx"),
        ("yo_weight", "zy"),
    ]


def test_channels_behind_the_heads() -> None:
    found = only(BESIDE)
    assert isinstance(found.values, Values)
    (reader,) = found.values.readers
    assert (reader.value.name, reader.name) == ("z", "out_weight")


@pytest.mark.parametrize(
    ("before", "after", "scores", "values"),
    [
        ("Mul (qt, scale)", "Mul (qt, sine)", "'qs' multiplies by more than a number", None),
        ("Mul (qt, scale)", "Tanh (qt)", "'qs', a Tanh, lies between linear and heads", None),
        ("[0, 1, 3, 2]> (kt)", "[1, 0, 3, 2]> (kt)", "the axes of 'kh' are in another order", None),
        ("vh = Reshape (v, split)", "vn = Neg (v)\n    vh = Reshape (vn, split)", None,
         "'vn' is a Neg, wanted a linear"),
        ("join = {0, 0, 32}", "join = {0, -1, 8}", None, "'z' does not put the heads side by side"),
        ("out0 = MatMul (z,", "zn = Neg (z)\n    out0 = MatMul (zn,", None,
         "'zn', a Neg, reads what attention gives"),
        ("(float[B,S,24] o)", "(float[B,S,24] o, float[B,S,32] z)", None, "'z' is an output of the graph"),
        ("v0 = MatMul (y, v_weight)", "v0 = MatMul (y, k_weight)", "'k_weight' is read by others as well",
         "'k_weight' is read by others as well"),
    ],
)  # fmt: skip
def test_broken_patterns_say_where(before: str, after: str, scores: str | None, values: str | None) -> None:
    text = attention_text()
    assert before in text
    found = only(text.replace(before, after).replace("float[8] sine", "float[1,1,1,8] sine"))
    assert (found.scores == scores) == (scores is not None)
    assert (found.values == values) == (values is not None)


def test_a_softmax_that_is_no_attention() -> None:
    text = """g (float[B,32] x) => (float[B,16] y) <float[32,32] w, float[32,16] v> {
        a = MatMul (x, w)
        b = Softmax <axis = -1> (a)
        y = MatMul (b, v) }"""
    assert list(find_attentions(model_of(text).graph)) == []
