"""Compress-heads: let the heads of attention meet in fewer channels, as many as their work needs.

    before   q, k, v: 4 heads of 32         scores q kᵀ, output (softmax · v) wo
    after    q, k: 4 heads of 12, v: 4 heads of 20

A head never uses wq and wk apart, only their product, and the same holds for wv and wo; so both products are
truncated and not the four weights (COMCAT, arXiv 2305.17235). How much each attention keeps follows from
what its outputs lose on recorded inputs, for a number of parameters given for all. Nothing is trained.

INT4 wants the inputs of the output linear, heads times width, to be a multiple of its group: with 4 heads and
groups of 64 that is multiple=16.

Where queries and keys are normalized or turned by their positions before they meet, their product is not
that of the weights, and they stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.attention import Attention, Scores, Values, find_attentions
from latentc.passes.base import Change, LayerLoss, Pass, PassContext, PassResult, Refusal
from latentc.passes.calibration import is_record_held_out, read_samples
from latentc.passes.feed_forward import feed_forward_linears
from latentc.passes.front import best_within
from latentc.passes.head_factors import score_factors, value_factors
from latentc.passes.head_moments import recorded_moments, tempered, weight_moments
from latentc.passes.head_places import (
    Place,
    factor_place,
    factorable_linear,
    factorables,
    read_rows,
    score_place,
    value_place,
    widths_of,
)
from latentc.passes.int4_layers import require_canonical_linears
from latentc.passes.layer_inputs import moments_of
from latentc.passes.one_thread import one_thread
from latentc.passes.options import limits
from latentc.passes.score_effect import Narrowed, score_effects
from latentc.passes.two_factors import Factorable
from latentc.passes.weights import Array, Floats, matches

COMPRESSED = "latentc.heads"
"""Node metadata on what compress-heads has considered: the two products of attention, and linears."""
_Part = TypeVar("_Part", Scores, Values)
_EFFECT_SAMPLES = 8
"""Held-out inputs at most on which the effect of narrower scores is measured."""


@dataclass(frozen=True)
class CompressHeads(Pass):
    """Truncate what queries and keys, and values and output, do together in each head of attention."""

    name: ClassVar[str] = "compress-heads"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = False

    keep: float = field(
        default=0.5, metadata=limits(0.05, 1.0, "share of the parameters that stay, of those it may change")
    )
    multiple: int = field(default=4, metadata=limits(1, 256, "what widths are a multiple of"))
    calibrated: bool = field(
        default=True,
        metadata=limits(None, None, "judge by what recorded inputs give, not by the weights alone"),
    )
    joint: bool = field(
        default=True,
        metadata=limits(None, None, "false: truncate each weight alone, into two, to compare with"),
    )
    feed_forward: bool = field(
        default=False, metadata=limits(None, None, "split the linears around a GELU into two as well")
    )
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights to leave alone, * matches any text")
    )

    @property
    def needs_calibration(self) -> bool:
        """As the option ``calibrated`` says."""
        return self.calibrated

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with [K, N] constants."""
        require_canonical_linears(self.name, model)

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Choose widths for all places together and rewrite those that become narrower."""
        graph = model.graph
        refusals: list[Refusal] = []
        attentions = list(self._attentions(graph, refusals))
        linears = list(self._linears(graph, refusals)) if self.feed_forward else []
        for node in [*(part.node for part in _parts(attentions)), *(linear.product for linear in linears)]:
            node.metadata_props[COMPRESSED] = self.name
        with one_thread():
            places = self._head_places(model, attentions, context) if self.joint else []
            alone = [] if self.joint else [one for part in _parts(attentions) for one in factorables(part)]
            places += self._factor_places(model, [*alone, *linears], context, refusals)
            widths = self._chosen(places)
            changes: dict[str, list[str]] = {}
            for place in places:
                width = widths[place.name]
                if width == place.full:
                    refusals.append(
                        Refusal(place.where, f"{place.part} stays {place.full}: elsewhere less is lost")
                    )
                    continue
                context.ledger.record(LayerLoss(place.layer, self.name, place.error(width)))
                place.narrow(width)
                changes.setdefault(place.where, []).append(f"{place.part} {place.full} to {width}")
        return PassResult(
            model,
            tuple(Change(where, ", ".join(words)) for where, words in changes.items()),
            tuple(refusals),
        )

    def _attentions(self, graph: ir.Graph, refusals: list[Refusal]) -> Iterator[Attention]:
        """What is left to do of each attention: a text in the place of what stays as it is."""
        for one in find_attentions(graph):
            left = replace(one, scores=self._left(one.scores), values=self._left(one.values))
            refusals += [
                Refusal(one.name, f"{label}: {part}")
                for label, part in (("qk", left.scores), ("vo", left.values))
                if isinstance(part, str)
            ]
            if not (isinstance(left.scores, str) and isinstance(left.values, str)):
                yield left

    def _left(self, part: _Part | str) -> _Part | str:
        """``part``, or why it stays as it is."""
        if isinstance(part, str):
            return part
        if COMPRESSED in part.node.metadata_props:
            return "was considered already"
        if any(matches(one.name, self.skip) for one in factorables(part)):
            return "matches skip"
        return part

    def _linears(self, graph: ir.Graph, refusals: list[Refusal]) -> Iterator[Factorable]:
        """The linears of feed-forward parts that were not considered yet."""
        readers = {
            reader.name
            for one in find_attentions(graph)
            if isinstance(one.values, Values)
            for reader in one.values.readers
        }
        for linear in feed_forward_linears(graph):
            if linear.name in readers:
                refusals.append(Refusal(linear.name, "also multiplies what attention gives"))
            elif COMPRESSED in linear.nodes[0].metadata_props:
                refusals.append(Refusal(linear.name, "was considered already"))
            elif matches(linear.name, self.skip):
                refusals.append(Refusal(linear.name, "matches skip"))
            else:
                yield factorable_linear(linear)

    def _head_places(
        self, model: ir.Model, attentions: Sequence[Attention], context: PassContext
    ) -> list[Place]:
        """Scores and values of every attention, with what each width loses."""
        if not attentions:
            return []
        judges: Sequence[dict[str, Array]] = ()
        if self.calibrated:
            samples = read_samples(self.name, context.calibration, model)
            judges = [one for number, one in enumerate(samples) if is_record_held_out(number)] or samples
            known, held_out = recorded_moments(model, attentions, samples)
            fit = tempered(known, weight_moments(attentions))
        else:
            fit = held_out = weight_moments(attentions)
        directions = {
            one.name: value_factors(fit.values[one.name], _weights(one.values), one.values.heads[0])
            for one in attentions
            if isinstance(one.values, Values)
        }
        pairs = {name: score_factors(moments) for name, moments in fit.scores.items()}
        widths = {
            one.name: widths_of(one.scores.heads[1], self.multiple)
            for one in attentions
            if isinstance(one.scores, Scores)
        }
        seen = [
            Narrowed(one.name, one.scores, one.values, *pairs[one.name], directions[one.name][1])
            for one in attentions
            if isinstance(one.scores, Scores) and isinstance(one.values, Values)
        ]
        effects = score_effects(model, seen, widths, judges[:_EFFECT_SAMPLES]) if judges else {}
        places = []
        for one in attentions:
            name = one.name
            if isinstance(one.scores, Scores):
                judge = held_out.scores[name]
                places.append(
                    score_place(
                        model.graph, name, one.scores, pairs[name], judge, widths[name], effects.get(name)
                    )
                )
            if isinstance(one.values, Values):
                offered = widths_of(one.values.heads[1], self.multiple)
                flows = fit.values[name], held_out.values[name]
                places.append(value_place(model.graph, name, one.values, directions[name], *flows, offered))
        return places

    def _factor_places(
        self,
        model: ir.Model,
        candidates: Sequence[Factorable],
        context: PassContext,
        refusals: list[Refusal],
    ) -> list[Place]:
        """Weights to truncate alone, with what each rank loses."""
        linears = [one.linear for one in candidates]
        moments = moments_of(self.name, model, linears, context) if self.calibrated and linears else {}
        places = []
        for one in candidates:
            place = factor_place(model.graph, one, moments.get(one.name), self.multiple, self.name)
            if place is None:
                refusals.append(Refusal(one.name, f"no rank saves parameters of {list(one.shape)}"))
            else:
                places.append(place)
        return places

    def _chosen(self, places: Sequence[Place]) -> dict[str, int]:
        """A width for each of ``places``, by its name."""
        ways = {place.name: place.ways for place in places}
        whole = sum(place.ways[-1].cost for place in places)
        mix = best_within(ways, int(self.keep * whole))
        if mix is None:
            least = sum(place.ways[0].cost for place in places) / whole
            raise PassError(
                f"{self.name}.keep",
                f"is {self.keep}, and heads of {self.multiple} take {least:.3f} of the parameters",
                f"raise keep to {least + 0.001:.3f}, or lower multiple",
            )
        return {name: way.kind for name, way in mix.ways.items()}


def _parts(attentions: Sequence[Attention]) -> list[Scores | Values]:
    both = (part for one in attentions for part in (one.scores, one.values))
    return [part for part in both if not isinstance(part, str)]


def _weights(values: Values) -> list[Floats]:
    """Of each reader, the rows that multiply attention."""
    heads, width = values.heads
    return [read_rows(reader, heads * width) for reader in values.readers]
