"""Score effect: what attention's output loses, behind the softmax, when fewer channels make the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from latentc.passes.attention import Scores, Values
from latentc.passes.calibration import inner_values
from latentc.passes.head_factors import Wide
from latentc.passes.weights import Array, Floats, name_of

_QUERIES = 64
"""Of each picture at most, evenly spaced: enough to judge by, whatever its size."""


@dataclass(frozen=True)
class Narrowed:
    """One attention to judge, and how its scores would be narrowed.

    Args:
        name: of the attention.
        scores: of it.
        values: of it.
        queries: P [H, D, D]; the first columns are kept.
        keys: S [H, D, D] likewise.
        grams: of each reader, [H, D, D], divided by the mean square of its output.
    """

    name: str
    scores: Scores
    values: Values
    queries: Wide
    keys: Wide
    grams: Sequence[Wide]


def score_effects(
    model: ir.Model,
    narrowed: Sequence[Narrowed],
    widths: Mapping[str, Sequence[int]],
    samples: Sequence[Mapping[str, Array]],
) -> dict[str, list[float]]:
    """Run ``model`` on ``samples`` and give the loss by the attention's name, for each of its ``widths``.

    That is the mean square of what the readers lose of their outputs, relative to them, each head alone.
    """
    names = sorted({name for one in narrowed for name in _names(one)})
    sums = {one.name: np.zeros(len(widths[one.name])) for one in narrowed}
    for values in inner_values(model, names, samples) if names else ():
        for one in narrowed:
            sums[one.name] += _effects(one, widths[one.name], values)
    return {name: [float(item) for item in total / max(1, len(samples))] for name, total in sums.items()}


def _effects(one: Narrowed, widths: Sequence[int], values: Mapping[str, Floats]) -> Wide:
    scores, outputs = one.scores, one.values
    heads = scores.heads[0]
    queries = _cut(values[name_of(scores.queries.whole)], heads)
    queries = queries[:, :, :: -(-queries.shape[2] // _QUERIES)]
    keys = _cut(values[name_of(scores.keys.whole)], heads)
    mixed = np.concatenate([_cut(values[name_of(part.whole)], heads) for part in outputs.sources], axis=2)
    wanted = _softmax(queries @ keys.transpose(0, 1, 3, 2), scores.scale) @ mixed
    gram = np.mean(one.grams, axis=0)
    losses = []
    for width in widths:
        narrow_queries = queries @ one.queries[:, :, :width].astype(np.float32)
        narrow_keys = keys @ one.keys[:, :, :width].astype(np.float32)
        seen = _softmax(narrow_queries @ narrow_keys.transpose(0, 1, 3, 2), scores.scale) @ mixed
        missed = (seen - wanted).astype(np.float64)
        rows = missed.shape[0] * missed.shape[2]
        losses.append(float(np.einsum("bhsi,hij,bhsj->", missed, gram, missed, optimize=True)) / rows)
    return np.array(losses)


def _names(one: Narrowed) -> list[str]:
    parts = (one.scores.queries, one.scores.keys, *one.values.sources)
    return [name_of(part.whole) for part in parts]


def _cut(value: Floats, heads: int) -> Floats:
    """[B, T, H · D] as [B, H, T, D]."""
    batch, tokens, _ = value.shape
    return value.reshape(batch, tokens, heads, -1).transpose(0, 2, 1, 3)


def _softmax(products: Floats, scale: float) -> Floats:
    scores = np.float32(scale) * products
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
