"""Head moments: what flows through the heads of attention, from recorded inputs or from the weights alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from latentc.passes.attention import Attention, Projection, Scores, Values
from latentc.passes.calibration import inner_values, is_record_held_out
from latentc.passes.head_factors import ScoreMoments, ValueMoments, block_diagonal
from latentc.passes.weights import Array, Floats, constant, name_of, read_floats

_WHITE = 0.03
"""How much counts what white inputs would give: 0.5 dB better than nothing on held-out inputs of both demo
models; 0.1 and 0.3 are better for shapes-flux alone, 0.01 for shapes-sd alone."""


@dataclass(frozen=True)
class HeadMoments:
    """By an attention's name: what flows into its scores, and to each reader of its values."""

    scores: Mapping[str, ScoreMoments]
    values: Mapping[str, tuple[ValueMoments, ...]]


def recorded_moments(
    model: ir.Model, attentions: Sequence[Attention], samples: Sequence[Mapping[str, Array]]
) -> tuple[HeadMoments, HeadMoments]:
    """Run ``model`` on ``samples`` and average over them, tokens and pictures.

    Returns:
        What to fit to, and what to judge by; the same when there are too few samples to hold one out.
    """
    names = sorted({name for one in attentions for name in _names(one)})
    fit, held_out = ({name: _Sum() for name in names} for _ in range(2))
    keys = {name_of(one.scores.keys.whole) for one in attentions if isinstance(one.scores, Scores)}
    heads = {
        name_of(part.whole): one.scores.heads[0]
        for one in attentions
        if isinstance(one.scores, Scores)
        for part in (one.scores.queries, one.scores.keys)
    }
    is_any_held_out = False
    for number, values in enumerate(inner_values(model, names, samples)):
        is_any_held_out |= is_record_held_out(number)
        sums = held_out if is_record_held_out(number) else fit
        for name, value in values.items():
            centred = value - value.mean(axis=1, keepdims=True) if name in keys else value
            sums[name].add(centred, heads.get(name))
    fitted = _by_attention(attentions, fit)
    return fitted, _by_attention(attentions, held_out) if is_any_held_out else fitted


def _by_attention(attentions: Sequence[Attention], sums: Mapping[str, _Sum]) -> HeadMoments:
    scores, outputs = {}, {}
    for one in attentions:
        if isinstance(one.scores, Scores):
            scores[one.name] = ScoreMoments(
                sums[name_of(one.scores.queries.whole)].moments(),
                sums[name_of(one.scores.keys.whole)].moments(),
            )
        if isinstance(one.values, Values):
            outputs[one.name] = tuple(sums[name_of(reader.value)].spread() for reader in one.values.readers)
    return HeadMoments(scores, outputs)


def weight_moments(attentions: Sequence[Attention]) -> HeadMoments:
    """As if what the linears read were white, and attention kept the spread of its values; reads weights."""
    scores, values = {}, {}
    for one in attentions:
        if isinstance(one.scores, Scores):
            queries, keys = one.scores.queries, one.scores.keys
            scores[one.name] = ScoreMoments(_gram(queries, with_bias=True), _gram(keys, with_bias=False))
        if isinstance(one.values, Values):
            sources = one.values.sources
            alone = len(sources) == 1  # with one source the bias reaches the output whole: it is the mean
            gram = np.mean([_gram(source, with_bias=not alone) for source in sources], axis=0)
            covariance = block_diagonal(gram).astype(np.float32)
            mean = bias_of(sources[0]) if alone else np.zeros(len(covariance), np.float32)
            values[one.name] = (ValueMoments(mean, covariance),) * len(one.values.readers)
    return HeadMoments(scores, values)


def tempered(recorded: HeadMoments, white: HeadMoments) -> HeadMoments:
    """``recorded`` with a little of ``white``, of weight_moments: a record of inputs is never complete."""
    scores = {
        name: ScoreMoments(
            _mixed(known.queries, white.scores[name].queries), _mixed(known.keys, white.scores[name].keys)
        )
        for name, known in recorded.scores.items()
    }
    values = {
        name: tuple(
            ValueMoments(one.mean, _mixed(one.covariance, other.covariance))
            for one, other in zip(known, white.values[name], strict=True)
        )
        for name, known in recorded.values.items()
    }
    return HeadMoments(scores, values)


def _mixed(known: Floats, white: Floats) -> Floats:
    """[…, D, D]: ``known`` and _WHITE of ``white`` at the same trace."""
    traces = [np.trace(one, axis1=-2, axis2=-1)[..., None, None] for one in (known, white)]
    scale = np.divide(traces[0], traces[1], out=np.zeros_like(traces[0]), where=traces[1] > 0)
    return np.asarray(known + np.float32(_WHITE) * scale * white, dtype=np.float32)


def bias_of(projection: Projection) -> Floats:
    """The bias [H · D] of ``projection``, zeros when it has none."""
    tensor = constant(projection.bias.value) if projection.bias is not None else None
    if tensor is None:
        return np.zeros(projection.shape[2] * projection.shape[3], np.float32)
    return read_floats(tensor)


def _gram(projection: Projection, *, with_bias: bool) -> Floats:
    """Wᵀ W of each head, [H, D, D], the bias as one more row of W."""
    tensor = constant(projection.weight)
    if tensor is None:
        raise AssertionError("a projection has a constant weight")
    rows = read_floats(tensor)
    if with_bias:
        rows = np.concatenate([rows, bias_of(projection)[None]])
    cut = rows.astype(np.float64).reshape(len(rows), *projection.shape[2:]).transpose(1, 0, 2)
    return np.asarray(cut.transpose(0, 2, 1) @ cut, dtype=np.float32)


def _names(one: Attention) -> list[str]:
    names = []
    if isinstance(one.scores, Scores):
        names += [name_of(one.scores.queries.whole), name_of(one.scores.keys.whole)]
    if isinstance(one.values, Values):
        names += [name_of(reader.value) for reader in one.values.readers]
    return names


class _Sum:
    """Adds up rows and their products in float64."""

    def __init__(self) -> None:
        self._rows = 0
        self._first: NDArray[np.float64] = np.zeros(1)
        self._second: NDArray[np.float64] = np.zeros(1)

    def add(self, value: Floats, heads: int | None) -> None:
        """Add ``value`` [B, T, H · D]; with ``heads`` only products within a head are kept."""
        flat = value.reshape(-1, value.shape[-1])
        cut = flat.reshape(len(flat), heads or 1, -1).transpose(1, 0, 2)
        self._rows += len(flat)
        self._first = self._first + flat.sum(axis=0, dtype=np.float64)
        self._second = self._second + (cut.transpose(0, 2, 1) @ cut)

    def moments(self) -> Floats:
        """The average x xᵀ of each head, [H, D, D]."""
        return (self._second / max(1, self._rows)).astype(np.float32)

    def spread(self) -> ValueMoments:
        """Mean and covariance over all channels."""
        mean = self._first / max(1, self._rows)
        second = self._second[0] / max(1, self._rows)
        return ValueMoments(mean.astype(np.float32), (second - np.outer(mean, mean)).astype(np.float32))
