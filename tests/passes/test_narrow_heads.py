"""Narrow heads compute the same function when nothing is left out, biases included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.attention_graphs import BESIDE, HEADS, JOINED, WIDTH, attention_model
from tests.passes.graphs import inputs_of, model_of, operators, relative_error, run_model

from latentc.errors import PassError
from latentc.passes.attention import Scores, Values, find_attentions
from latentc.passes.head_factors import Wide, score_factors, value_factors
from latentc.passes.head_moments import weight_moments
from latentc.passes.head_places import read_rows
from latentc.passes.narrow_heads import narrow_scores, narrow_values

EXACT = 1e-5  # float32 in both; factors of full width are each other's inverse to 1e-6


def turned(model: ir.Model) -> ir.Model:
    """The same function with every head turned by factors of full width."""
    after = model.clone()
    (attention,) = find_attentions(after.graph)
    moments = weight_moments([attention])
    scores, values = attention.scores, attention.values
    if isinstance(values, Values):
        known = moments.values[attention.name]
        weights = [read_rows(reader, HEADS * WIDTH) for reader in values.readers]
        narrow_values(after.graph, values, known, value_factors(known, weights, HEADS)[0])
    if isinstance(scores, Scores):
        narrow_scores(after.graph, scores, *score_factors(moments.scores[attention.name]))
    return after


def error(before: ir.Model, after: ir.Model, folder: Path, seed: int, batch: int = 2) -> float:
    feeds = inputs_of(before, {"B": batch, "S": 5, "T": 7}, seed)
    if "middle" in feeds:
        feeds["middle"] = np.array([5], np.int64)
    wanted = run_model(before, folder / "before", feeds)
    seen = run_model(after, folder / f"after{batch}", feeds)
    return max(relative_error(one, other) for one, other in zip(seen, wanted, strict=True))


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("source", ["x", "y"])
def test_the_function_stays(biased: bool, source: str, tmp_path: Path, seed: int) -> None:
    before = attention_model(biased=biased, source=source)
    after = turned(before)
    assert error(before, after, tmp_path, seed) < EXACT
    assert error(before, after, tmp_path, seed, batch=3) < EXACT
    # the biases of keys and values are gone: one does not reach the softmax, one is in the output's
    assert operators(before).count("Add") - operators(after).count("Add") == (2 if biased else 0)


@pytest.mark.parametrize("between", ["norm", "rotation"])
def test_values_alone(between: str, tmp_path: Path, seed: int) -> None:
    before = attention_model(between=between)
    assert error(before, turned(before), tmp_path, seed) < EXACT


@pytest.mark.parametrize("text", [JOINED, BESIDE], ids=["joined", "beside"])
def test_streams_and_channels_beside(text: str, tmp_path: Path, seed: int) -> None:
    before = model_of(text)
    assert error(before, turned(before), tmp_path, seed) < EXACT


def test_a_bias_is_added_where_there_was_none(tmp_path: Path, seed: int) -> None:
    after = turned(model_of(BESIDE))
    assert "out_weight.bias" in after.graph.initializers
    assert after.graph.outputs[0].name == "o"


def drawn(seed: int, width: int) -> Wide:
    return np.random.default_rng(seed).standard_normal((HEADS, WIDTH, width))


def test_shapes_at_another_width(tmp_path: Path, seed: int) -> None:
    model = attention_model()
    (attention,) = find_attentions(model.graph)
    assert isinstance(attention.scores, Scores)
    narrow_scores(model.graph, attention.scores, drawn(seed, 3), drawn(seed + 1, 3))
    shapes = {name: tuple(value.shape or ()) for name, value in model.graph.initializers.items()}
    assert (shapes["q_weight"], shapes["q_bias"], shapes["k_weight"]) == ((24, 12), (12,), (20, 12))
    assert "k_bias" not in shapes
    run_model(model, tmp_path, inputs_of(model, {"B": 2, "S": 5, "T": 7}, seed))


def test_not_finite(seed: int) -> None:
    model = attention_model()
    model.graph.initializers["q_weight"].const_value = ir.tensor(np.full((24, 32), np.inf, np.float32))
    (attention,) = find_attentions(model.graph)
    assert isinstance(attention.scores, Scores)
    narrow_scores(model.graph, attention.scores, drawn(seed, 3), drawn(seed + 1, 3))
    value = model.graph.initializers["q_weight"].const_value
    assert value is not None
    with pytest.raises(PassError) as caught:
        value.numpy()
    assert str(caught.value) == "compress-heads: 'q_weight' holds NaN or infinity\nfix: check the checkpoint"
