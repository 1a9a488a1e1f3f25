"""Head places: where compress-heads may save parameters, what each width loses there, and how it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from latentc.passes.attention import Projection, Reader, Scores, Values
from latentc.passes.front import Way
from latentc.passes.head_factors import (
    ScoreMoments,
    ValueMoments,
    Wide,
    regression,
    regression_loss,
    score_loss,
    value_loss,
)
from latentc.passes.moments import Moments
from latentc.passes.narrow_heads import narrow_scores, narrow_values
from latentc.passes.two_factors import Factorable, most_rank, output_basis, put_factors, rank_losses
from latentc.passes.weights import Floats, Linear, constant, read_floats, shape_of

_FLOAT_BYTES = 4  # weights are float32 until a later pass stores them otherwise


@dataclass(frozen=True)
class Place:
    """One place with a width to choose.

    Args:
        where: the attention's name, or the weight's.
        layer: the weight that its loss is reported for.
        part: ``qk``, ``vo`` or ``rank``.
        ways: the widths offered, in bytes of float32; the last is as it is, and loses nothing.
        error: ‖rewritten - original‖ / ‖original‖ on held-out inputs, for a width.
        narrow: rewrites the graph to a width below the last.
    """

    where: str
    layer: str
    part: str
    ways: tuple[Way[int], ...]
    error: Callable[[int], float]
    narrow: Callable[[int], None]

    @property
    def name(self) -> str:
        """No other place of the graph has it."""
        return f"{self.where}: {self.part}"

    @property
    def full(self) -> int:
        """The width as it is."""
        return self.ways[-1].kind


def widths_of(full: int, multiple: int) -> list[int]:
    """Every multiple of ``multiple`` below ``full``; then ``full``."""
    return [*range(multiple, full, multiple), full]


def score_place(
    graph: ir.Graph,
    where: str,
    scores: Scores,
    factors: tuple[Wide, Wide],
    held_out: ScoreMoments,
    widths: Sequence[int],
    effects: Sequence[float] | None,
) -> Place:
    """The place where queries and keys meet.

    Args:
        graph: to rewrite.
        where: the attention's name.
        scores: of it.
        factors: of latentc.passes.head_factors.score_factors.
        held_out: to judge by.
        widths: the last is the full one.
        effects: what the output loses at each of ``widths``; without, what the scores lose counts.
    """
    queries, keys = factors

    def lost(width: int) -> float:
        return score_loss(held_out, queries[:, :, :width], keys[:, :, :width])

    losses = [lost(width) for width in widths] if effects is None else effects
    by_width = dict(zip(widths, losses, strict=True))
    inputs = sum(_rows(part) for part in (scores.queries, scores.keys))
    return Place(
        where,
        scores.queries.name,
        "qk",
        _ways(widths, losses, inputs * scores.heads[0]),
        lambda width: float(np.sqrt(by_width[width])),
        lambda width: narrow_scores(graph, scores, queries[:, :, :width], keys[:, :, :width]),
    )


def value_place(
    graph: ir.Graph,
    where: str,
    values: Values,
    factors: tuple[Wide, Sequence[Wide]],
    fit: Sequence[ValueMoments],
    held_out: Sequence[ValueMoments],
    widths: Sequence[int],
) -> Place:
    """The place where values are carried to their readers.

    Args:
        graph: to rewrite.
        where: the attention's name.
        values: of it.
        factors: of latentc.passes.head_factors.value_factors.
        fit: of each reader, to fit the readers to.
        held_out: of each reader, to judge by.
        widths: the last is the full one.
    """
    directions, grams = factors
    channels = values.heads[0] * values.heads[1]

    def error(width: int) -> float:
        kept = directions[:, :, :width]
        losses = [
            regression_loss(judge, read_rows(reader, channels), kept, regression(known, kept))
            for reader, known, judge in zip(values.readers, fit, held_out, strict=True)
        ]
        return float(np.sqrt(np.mean(losses)))

    sides = sum(_rows(part) for part in values.sources) + sum(_columns(one) for one in values.readers)
    losses = [value_loss(fit, held_out, grams, directions[:, :, :width]) for width in widths]
    return Place(
        where,
        values.sources[0].name,
        "vo",
        _ways(widths, losses, sides * values.heads[0]),
        error,
        lambda width: narrow_values(graph, values, fit, directions[:, :, :width]),
    )


def factor_place(
    graph: ir.Graph, place: Factorable, moments: Moments | None, multiple: int, pass_name: str
) -> Place | None:
    """The place of one weight that may become two; None when no rank saves parameters."""
    K, N = place.shape
    ranks = list(range(multiple, most_rank(K, N) + 1, multiple))
    if not ranks:
        return None
    weight = place.values()
    fit, held_out = (None, None) if moments is None else (moments.fit[:K, :K], moments.held_out[:K, :K])
    losses = rank_losses(weight, output_basis(weight, fit), held_out)
    ways = [Way(rank, _FLOAT_BYTES * rank * (K + N), float(losses[rank])) for rank in ranks]
    return Place(
        place.name,
        place.name,
        "rank",
        (*ways, Way(min(K, N), _FLOAT_BYTES * K * N, 0.0)),
        lambda rank: float(np.sqrt(losses[rank])),
        lambda rank: put_factors(graph, place, rank, fit, pass_name),
    )


def factorables(part: Scores | Values) -> list[Factorable]:
    """The weights of scores or values, each to be truncated alone."""
    if isinstance(part, Scores):
        return [_of_projection(part.queries), _of_projection(part.keys)]
    channels = part.heads[0] * part.heads[1]
    readers = [_of_reader(reader, channels) for reader in part.readers]
    return [*(_of_projection(source) for source in part.sources), *readers]


def factorable_linear(linear: Linear) -> Factorable:
    """All rows of a linear that has one node."""
    return Factorable(linear.weight, linear.nodes[0], linear.nodes[0], linear.shape)


def read_rows(reader: Reader, channels: int) -> Floats:
    """The rows of ``reader``'s weight that multiply attention, [H · D, N]."""
    return read_floats(_tensor(reader.weight))[:channels]


def _of_projection(part: Projection) -> Factorable:
    return Factorable(part.weight, part.product, part.product, (_rows(part), part.shape[2] * part.shape[3]))


def _of_reader(reader: Reader, channels: int) -> Factorable:
    given = reader.product.inputs[0]
    concat = None if given is None or given is reader.value else given.producer()
    return Factorable(reader.weight, reader.product, concat or reader.product, (channels, _columns(reader)))


def _ways(widths: Sequence[int], losses: Sequence[float], parameters: int) -> tuple[Way[int], ...]:
    """``parameters`` for each channel of a head; the full width loses nothing."""
    whole = widths[-1]
    return tuple(
        Way(width, _FLOAT_BYTES * width * parameters, 0.0 if width == whole else loss)
        for width, loss in zip(widths, losses, strict=True)
    )


def _rows(part: Projection) -> int:
    return shape_of(_tensor(part.weight))[0]


def _columns(reader: Reader) -> int:
    return shape_of(_tensor(reader.weight))[1]


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    tensor = constant(value)
    if tensor is None:
        raise AssertionError("the weights around attention are constants")
    return tensor
