"""Places offer widths with what each costs; the last is the graph as it is."""

from __future__ import annotations

import pytest
from tests.passes.attention_graphs import BESIDE, attention_model
from tests.passes.graphs import model_of

from latentc.passes.attention import Scores, Values, find_attentions
from latentc.passes.head_factors import score_factors, value_factors
from latentc.passes.head_moments import weight_moments
from latentc.passes.head_places import (
    factor_place,
    factorable_linear,
    factorables,
    read_rows,
    score_place,
    value_place,
    widths_of,
)
from latentc.passes.weights import find_linears


@pytest.mark.parametrize(
    ("full", "multiple", "widths"),
    [(8, 4, [4, 8]), (10, 4, [4, 8, 10]), (4, 4, [4]), (3, 4, [3])],
)
def test_widths(full: int, multiple: int, widths: list[int]) -> None:
    assert widths_of(full, multiple) == widths


def test_parameters_are_those_of_the_weights() -> None:
    model = attention_model()
    (attention,) = find_attentions(model.graph)
    moments = weight_moments([attention])
    scores, values = attention.scores, attention.values
    assert isinstance(scores, Scores)
    assert isinstance(values, Values)
    meet = moments.scores["mixed"]
    place = score_place(model.graph, "mixed", scores, score_factors(meet), meet, [2, 8], None)
    assert [way.cost for way in place.ways] == [4 * (24 + 20) * 4 * 2, 4 * (24 + 20) * 32]
    assert place.ways[-1].loss == 0
    assert place.error(2) ** 2 == pytest.approx(place.ways[0].loss)
    known = moments.values["mixed"]
    factors = value_factors(known, [read_rows(values.readers[0], 32)], 4)
    carried = value_place(model.graph, "mixed", values, factors, known, known, [2, 8])
    assert [way.cost for way in carried.ways] == [4 * (20 + 24) * 4 * 2, 4 * (20 + 24) * 32]
    assert (carried.part, carried.full, carried.layer) == ("vo", 8, "v_weight")


def test_one_weight_alone() -> None:
    model = attention_model()
    linear = next(iter(find_linears(model.graph)))
    place = factor_place(model.graph, factorable_linear(linear), None, 4, "some-pass")
    assert place is not None
    assert [way.kind for way in place.ways] == [4, 8, 12, 24]
    assert [way.cost for way in place.ways] == [4 * 56 * 4, 4 * 56 * 8, 4 * 56 * 12, 4 * 24 * 32]
    assert factor_place(model.graph, factorable_linear(linear), None, 16, "some-pass") is None


def test_rows_beside_others() -> None:
    (attention,) = find_attentions(model_of(BESIDE).graph)
    assert isinstance(attention.values, Values)
    weight, reader = factorables(attention.values)
    assert (weight.shape, reader.shape) == ((24, 32), (32, 16))
    assert reader.entry.op_type == "Concat"
    assert weight.entry is weight.product
    assert reader.linear.shape == (42, 16)
