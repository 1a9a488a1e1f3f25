"""What makes the channels of an input, what cannot, and that a change there is one of the input."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from tests.passes.attention_graphs import JOINED
from tests.passes.graphs import model_of

from latentc.passes.attention import Values, find_attentions
from latentc.passes.makers import Blocked, Makers, makers_of, makers_of_values


def made_by(text: str, *skip: str) -> Makers:
    """The makers of what the MatMul by ``last`` reads."""
    graph = model_of(text).graph
    (reader,) = [node for node in graph if node.op_type == "MatMul" and name(node.inputs[1]) == "last"]
    given = reader.inputs[0]
    assert given is not None
    return makers_of(given, [reader], 8, skip)


def name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def graph(body: str, weights: str = "", inputs: str = "float[B,T,6] x") -> str:
    return f"g ({inputs}) => (float[B,T,4] y) <float[8,4] last{weights}> {{ {body} y = MatMul (a, last) }}"


def places(makers: Makers) -> list[tuple[str, int]]:
    return [(place.name, place.first) for place in makers.places]


@pytest.mark.parametrize(
    ("body", "weights", "wanted", "mixes"),
    [
        ("a = MatMul (x, w)", ", float[6,8] w", [("w", 0)], 8),
        ("p = MatMul (x, w) a = Add (b, p)", ", float[6,8] w, float[8] b", [("w", 0), ("b", 0)], 8),
        (
            "n = MatMul (x, w) a = LayerNormalization (n, g, b)",
            ", float[6,8] w, float[8] g, float[8] b",
            [("g", 0), ("b", 0)],
            1,
        ),
        ("n = MatMul (x, w) r = Sin (n) a = Mul (r, g)", ", float[6,8] w, float[8] g", [("g", 0)], 1),
        (
            "p = MatMul (x, w) u, g = Split <axis = 2, num_outputs = 2> (p) h = Gelu (g) a = Mul (h, u)",
            ", float[6,16] w",
            [("w", 0)],
            1,
        ),
        (
            "p = MatMul (x, w) g, u = Split <axis = 2, num_outputs = 2> (p) h = Gelu (g) a = Mul (u, h)",
            ", float[6,16] w",
            [("w", 8)],
            1,
        ),
        (
            "p = MatMul (x, w) g, a = Split <axis = -1> (p, sizes)",
            ", float[6,13] w, int64[2] sizes = {5, 8}",
            [("w", 5)],
            8,
        ),
        (
            "p = MatMul (x, w) q = MatMul (x, v) a = Add (p, q)",
            ", float[6,8] w, float[6,8] v",
            [("w", 0), ("v", 0)],
            8,
        ),
        (
            "p = MatMul (x, w) s = Mul (p, n) a = Add (s, n)",
            ", float[6,8] w, float n = {3}",
            [("w", 0), ("n", 0)],
            8,
        ),
        (
            "p = MatMul (x, w) t = Transpose <perm = [1, 0, 2]> (p) r = Reshape (t, s) a = Unsqueeze (r, i)",
            ", float[6,8] w, int64[2] s = {-1, 8}, int64[1] i = {0}",
            [("w", 0)],
            8,
        ),
    ],
)
def test_makers(body: str, weights: str, wanted: list[tuple[str, int]], mixes: int) -> None:
    found = made_by(graph(body, weights))
    assert (places(found), found.mixes) == (wanted, mixes)


def test_adaln_gets_a_vector_of_its_own_behind_the_norm() -> None:
    """γ is one vector of ones for all norms, and the 1 of ``1 + scale`` one number for all."""
    text = """g (float[B,T,8] x, float[B,6] m) => (float[B,T,4] y, float[B,T,8] other)
    <float[8,4] last, float[6,16] w, float[16] b, float[8] ones, float one = {1}, int64[1] axis = {1}> {
    p = MatMul (m, w)
    q = Add (p, b)
    shift, scale = Split <axis = 1, num_outputs = 2> (q)
    s = Unsqueeze (scale, axis)
    more = Add (s, one)
    n = LayerNormalization (x, ones)
    other = LayerNormalization (x, ones)
    product = Mul (n, more)
    h = Unsqueeze (shift, axis)
    a = Add (product, h)
    y = MatMul (a, last) }"""
    found = made_by(text)
    assert places(found) == [("ones", 0), ("w", 0), ("b", 0)]
    assert (str(found), found.mixes) == ("ones (a copy), w, b", 1)


@pytest.mark.parametrize(
    ("body", "weights", "why"),
    [
        ("p = MatMul (x, w) a = Gelu (p)", ", float[6,8] w", "'a' is a Gelu"),
        (
            "p = MatMul (x, w) a = Add (p, b) z = Sin (a)",
            ", float[6,8] w, float[8] b",
            "a Sin reads 'a' as well",
        ),
        (
            "p = MatMul (x, w) z = Sin (p) a = Add (p, b)",
            ", float[6,8] w, float[8] b",
            "'p' is read by others as well",
        ),
        ("a = MatMul (x, w) z = MatMul (x, w)", ", float[6,8] w", "'w' is read by others as well"),
        (
            "p = MatMul (x, w) s = Sigmoid (p) a = Mul (p, s)",
            ", float[6,8] w",
            "'p' is read by others as well; 's' is a Sigmoid",
        ),
        (
            "p = MatMul (x, w) r = Reshape (p, s) t = Transpose <perm = [0, 1, 3, 2]> (r) a = Reshape (t, u)",
            ", float[6,8] w, int64[4] s = {0, 0, 4, 2}, int64[3] u = {0, 0, 8}",
            "'t' is a Transpose",
        ),
        (  # heads move before tokens, so channels of the result are not those of the weight
            "p = MatMul (x, w) r = Reshape (p, s) t = Transpose <perm = [0, 2, 1, 3]> (r) a = Reshape (t, u)",
            ", float[6,8] w, int64[4] s = {0, 0, 4, 2}, int64[3] u = {0, -1, 8}",
            "'r' is a Reshape",
        ),
        (
            "p = MatMul (x, w) q, r = Split <axis = 1, num_outputs = 2> (p) a = Add (q, b)",
            ", float[6,8] w, float[8] b",
            "'w' gives 8 channels, not 16",
        ),
        (
            "p = MatMul (x, w) q = Unsqueeze (p, i) a = Mul (q, b) ",
            ", float[6,8] w, float[1,2] b, int64[1] i = {3}",
            "'q' is a Unsqueeze; 'b' has 2 numbers, not 8",
        ),
        (
            "n = MatMul (x, w) a = LayerNormalization <axis = 1> (n, g)",
            ", float[6,8] w, float[8] g",
            "'a' normalizes another axis than the last",
        ),
        ("p = MatMul (x, w) a = Concat <axis = 2> (p, p)", ", float[6,4] w", "'a' is a Concat"),
    ],
)
def test_what_stands_in_the_way(body: str, weights: str, why: str) -> None:
    with pytest.raises(Blocked) as caught:
        made_by(graph(body, weights))
    assert str(caught.value) == why


def test_inputs_outputs_and_weights_to_skip() -> None:
    linear = graph("a = MatMul (x, w)", ", float[6,8] w")
    with pytest.raises(Blocked, match=r"^'w' matches skip$"):
        made_by(linear, "w")
    with pytest.raises(Blocked, match=r"^the caller reads 'a' as well$"):
        made_by(linear.replace("(float[B,T,4] y)", "(float[B,T,4] y, float[B,T,8] a)"))
    with pytest.raises(Blocked, match=r"^'a' is an input$"):
        made_by("g (float[B,T,8] a) => (float[B,T,4] y) <float[8,4] last> { y = MatMul (a, last) }")


def test_all_values_of_one_attention() -> None:
    (attention,) = find_attentions(model_of(JOINED).graph)
    assert isinstance(attention.values, Values)
    found = makers_of_values(attention.values, ())
    assert str(found) == "xv_weight, xv_bias, yv_weight, yv_bias"
    assert found.mixes == 8  # a head's width
    assert all(place.is_own for place in found.places)
    with pytest.raises(Blocked, match=r"^'yv_weight' matches skip$"):
        makers_of_values(attention.values, ("y*",))
    assert {place.width for place in found.places} == {32}
