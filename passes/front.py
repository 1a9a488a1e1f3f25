"""Front: the best choices for every budget, when each layer has several ways to be stored.

Losses of layers add up, so the whole is best where every layer buys its next improvement at the same price:
the ways of a layer that lie on the lower hull of loss over cost, bought in the order of what a unit of cost
brings (Lagrange; Shoham and Gersho 1988, Efficient bit allocation for an arbitrary set of quantizers). A
layer here is whatever has a cost to choose: a linear its bits, the heads of an attention their width. What a
cost is of, bytes or time, is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

Kind = TypeVar("Kind")
_STRAIGHT = 1e-9
"""Relative difference of two gains that counts as rounding."""


@dataclass(frozen=True)
class Way(Generic[Kind]):
    """One way to store a layer.

    Args:
        kind: which way.
        cost: what it takes of the budget, a whole number of its units, such as bytes or nanoseconds.
        loss: what it costs in the end, 0 and up; losses of different layers are of one unit.
    """

    kind: Kind
    cost: int
    loss: float


@dataclass(frozen=True)
class Mix(Generic[Kind]):
    """A way for every layer, with the sum of their costs and losses."""

    ways: Mapping[str, Way[Kind]]

    @property
    def cost(self) -> int:
        """Sum over the layers."""
        return sum(way.cost for way in self.ways.values())

    @property
    def loss(self) -> float:
        """Sum over the layers."""
        return sum(way.loss for way in self.ways.values())


def front(layers: Mapping[str, Sequence[Way[Kind]]]) -> Iterator[Mix[Kind]]:
    """Mixes from the cheapest to the one with the least loss, each the best of its cost.

    Args:
        layers: by name, each with at least one way.
    """
    hulls = {name: lower_hull(ways) for name, ways in layers.items()}
    taken = {name: hull[0] for name, hull in hulls.items()}
    yield Mix(dict(taken))
    for _, _, name, way in sorted(_upgrades(hulls), key=lambda one: (-one[0], one[1], one[2])):
        taken[name] = way
        yield Mix(dict(taken))


def best_within(layers: Mapping[str, Sequence[Way[Kind]]], budget: int) -> Mix[Kind] | None:
    """The mix of the least loss that costs at most ``budget``; None when even the cheapest costs more.

    What is left of the budget when the next improvement does not fit goes to later ones that do.
    """
    hulls = {name: lower_hull(ways) for name, ways in layers.items()}
    taken = {name: hull[0] for name, hull in hulls.items()}
    free = budget - sum(way.cost for way in taken.values())
    if free < 0:
        return None
    for _, _, name, way in sorted(_upgrades(hulls), key=lambda one: (-one[0], one[1], one[2])):
        more = way.cost - taken[name].cost
        if more <= free:
            taken[name] = way
            free -= more
    return Mix(taken)


def lower_hull(ways: Sequence[Way[Kind]]) -> list[Way[Kind]]:
    """Those of ``ways`` that are the best for some price, the cheapest first.

    A way on the line between its neighbours, rounding of the losses aside, stays: with small steps less of a
    budget is left over.
    """
    hull: list[Way[Kind]] = []
    for way in sorted(ways, key=lambda one: (one.cost, one.loss)):
        if hull and way.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) * (1 + _STRAIGHT) < _gain(hull[-1], way):
            hull.pop()
        hull.append(way)
    return hull


def _upgrades(hulls: Mapping[str, list[Way[Kind]]]) -> Iterator[tuple[float, int, str, Way[Kind]]]:
    """Every step along a hull: what a unit of its cost brings, its number, the layer, the way it leads to.

    What a unit brings never rises along a hull, by rounding neither: a step is never bought before the last.
    """
    for name, hull in hulls.items():
        gain = math.inf
        for number, (before, after) in enumerate(pairwise(hull)):
            gain = min(gain, _gain(before, after))
            yield gain, number, name, after


def _gain(before: Way[Kind], after: Way[Kind]) -> float:
    """Loss that each unit of cost from ``before`` to ``after`` takes away."""
    return (before.loss - after.loss) / (after.cost - before.cost)
