"""Rank budget: which width each of several weights gets, when all together may hold so many parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """One width that is offered: what it costs in parameters, and what share of an output it loses."""

    width: int
    parameters: int
    loss: float


@dataclass(frozen=True)
class Ladder:
    """The widths offered in one place, each with more parameters than the one before."""

    name: str
    rungs: tuple[Rung, ...]


def climb(ladders: Sequence[Ladder], parameters: int) -> tuple[Rung, ...]:
    """Choose a rung of each ladder so that the losses sum to little and ``parameters`` are not exceeded.

    From the lowest rungs up, always by the step that gains most for a parameter, over the lower convex hull
    of each ladder: the best choice there is but for what the last step leaves over.

    Raises:
        ValueError: the lowest rungs already cost more.
    """
    hulls = [_hull(ladder.rungs) for ladder in ladders]
    places = [0] * len(hulls)
    free = parameters - sum(hull[0].parameters for hull in hulls)
    if free < 0:
        raise ValueError(f"{parameters} parameters are fewer than the smallest widths cost")
    while True:
        steps = [
            (_gain(hull[place], hull[place + 1]), -number)
            for number, (hull, place) in enumerate(zip(hulls, places, strict=True))
            if place + 1 < len(hull) and hull[place + 1].parameters - hull[place].parameters <= free
        ]
        if not steps:
            return tuple(hull[place] for hull, place in zip(hulls, places, strict=True))
        number = -max(steps)[1]
        hull, place = hulls[number], places[number]
        free -= hull[place + 1].parameters - hull[place].parameters
        places[number] += 1


def _hull(rungs: Sequence[Rung]) -> list[Rung]:
    """The rungs that lie on the lower convex hull of loss over parameters: gains fall from step to step."""
    kept: list[Rung] = []
    for rung in rungs:
        if kept and rung.loss >= kept[-1].loss:
            continue
        # a rung on the line between its neighbours stays: small steps use the budget up
        while len(kept) > 1 and _gain(kept[-2], kept[-1]) * (1 + 1e-9) < _gain(kept[-1], rung):
            kept.pop()
        kept.append(rung)
    return kept


def _gain(low: Rung, high: Rung) -> float:
    return (low.loss - high.loss) / (high.parameters - low.parameters)
