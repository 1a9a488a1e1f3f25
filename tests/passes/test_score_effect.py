"""The effect of narrower scores is what the graph itself loses when it is narrowed."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.attention_graphs import HEADS, attention_model, feeds_of

from latentc.passes.attention import Scores, Values, find_attentions
from latentc.passes.calibration import inner_values
from latentc.passes.head_factors import score_factors, value_factors
from latentc.passes.head_moments import recorded_moments
from latentc.passes.head_places import read_rows
from latentc.passes.narrow_heads import narrow_scores
from latentc.passes.score_effect import Narrowed, score_effects
from latentc.passes.weights import Array


def test_as_the_graph_gives_it(seed: int) -> None:
    model = attention_model(source="x")
    samples: list[dict[str, Array]] = [feeds_of(model, seed, number) for number in range(2)]
    (attention,) = find_attentions(model.graph)
    scores, values = attention.scores, attention.values
    assert isinstance(scores, Scores)
    assert isinstance(values, Values)
    moments, _ = recorded_moments(model, [attention], samples)
    queries, keys = score_factors(moments.scores["mixed"])
    _, grams = value_factors(moments.values["mixed"], [read_rows(values.readers[0], 32)], HEADS)
    one = Narrowed("mixed", scores, values, queries, keys, grams)
    effects = score_effects(model, [one], {"mixed": [1, 3, 8]}, samples)["mixed"]
    for width, effect in zip([1, 3, 8], effects, strict=True):
        after = model.clone()
        (attention,) = find_attentions(after.graph)
        assert isinstance(attention.scores, Scores)
        narrow_scores(after.graph, attention.scores, queries[:, :, :width], keys[:, :, :width])
        pairs = zip(inner_values(model, ["z"], samples), inner_values(after, ["z"], samples), strict=True)
        missed = np.concatenate([(b["z"] - a["z"]).reshape(-1, HEADS, 8) for a, b in pairs]).astype(
            np.float64
        )
        wanted = np.einsum("nhd,hde,nhe->", missed, grams[0], missed) / len(missed)
        assert effect == pytest.approx(wanted, rel=1e-3, abs=1e-9)
    assert effects[0] > effects[1] > effects[2]
