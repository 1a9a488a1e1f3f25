"""What flows through heads, measured and from weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.passes.attention_graphs import HEADS, JOINED, WIDTH, attention_model, feeds_of
from tests.passes.graphs import model_of

from latentc.passes.attention import Scores, find_attentions
from latentc.passes.calibration import inner_values
from latentc.passes.head_moments import HeadMoments, bias_of, recorded_moments, tempered, weight_moments
from latentc.passes.weights import Array


def cut(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float64).reshape(-1, HEADS, WIDTH)


def test_recorded_moments_are_those_of_the_values(seed: int) -> None:
    model = attention_model()
    samples: list[dict[str, Array]] = [feeds_of(model, seed, number) for number in range(4)]
    (attention,) = find_attentions(model.graph)
    found, held_out = recorded_moments(model, [attention], samples)
    alone, again = recorded_moments(model, [attention], samples[2:3])
    assert again is alone
    np.testing.assert_array_equal(held_out.scores["mixed"].keys, alone.scores["mixed"].keys)
    del samples[2]  # held out
    values = list(inner_values(model, ["q", "k", "z"], samples))
    queries = np.concatenate([cut(one["q"]) for one in values])
    keys = np.concatenate([cut(one["k"] - one["k"].mean(axis=1, keepdims=True)) for one in values])
    for seen, rows in ((found.scores["mixed"].queries, queries), (found.scores["mixed"].keys, keys)):
        wanted = np.einsum("nhd,nhe->hde", rows, rows) / len(rows)
        np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    mixed = np.concatenate([one["z"].reshape(-1, 32).astype(np.float64) for one in values])
    (reader,) = found.values["mixed"]
    np.testing.assert_allclose(reader.mean, mixed.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(reader.covariance, np.cov(mixed.T, bias=True), atol=1e-3)


def test_without_a_record_inputs_are_white(seed: int) -> None:
    model = attention_model()
    (attention,) = find_attentions(model.graph)
    found = weight_moments([attention])
    assert isinstance(attention.scores, Scores)
    weights = model.graph.initializers
    rows = {}
    for part in "qkv":
        stored = weights[f"{part}_weight"].const_value
        assert stored is not None
        rows[part] = cut(stored.numpy())
    bias = cut(bias_of(attention.scores.queries))
    queries = np.concatenate([rows["q"], bias])  # the bias as one more input that is always one
    np.testing.assert_allclose(
        found.scores["mixed"].queries, np.einsum("nhd,nhe->hde", queries, queries), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        found.scores["mixed"].keys, np.einsum("nhd,nhe->hde", rows["k"], rows["k"]), rtol=1e-4, atol=1e-5
    )
    (reader,) = found.values["mixed"]
    assert np.abs(reader.mean).max() > 0.1  # the bias arrives whole


def test_two_sources_keep_their_biases() -> None:
    (attention,) = find_attentions(model_of(JOINED).graph)
    for reader in weight_moments([attention]).values["mixed"]:
        assert not reader.mean.any()


def test_tempered_at_the_same_size(tmp_path: Path, seed: int) -> None:
    model = attention_model()
    (attention,) = find_attentions(model.graph)
    white = weight_moments([attention])
    samples: list[dict[str, Array]] = [feeds_of(model, seed, 0)]
    known, _ = recorded_moments(model, [attention], samples)
    mixed = tempered(known, white)
    for seen, was in (
        (mixed.scores["mixed"].keys, known.scores["mixed"].keys),
        (mixed.values["mixed"][0].covariance, known.values["mixed"][0].covariance),
    ):
        traces = [np.trace(one, axis1=-2, axis2=-1) for one in (seen, was)]
        np.testing.assert_allclose(traces[0], 1.03 * traces[1], rtol=1e-4)
    nothing = HeadMoments({}, {"mixed": white.values["mixed"]})
    assert tempered(nothing, white).values["mixed"][0].covariance == pytest.approx(
        1.03 * white.values["mixed"][0].covariance, rel=1e-4
    )
