"""The budget is kept and spent where it gains most."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.passes.rank_budget import Ladder, Rung, climb


@st.composite
def ladders(draw: st.DrawFn) -> list[Ladder]:
    """Ladders of equal steps whose gains fall, as those of singular values do."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        step = draw(st.integers(1, 5))
        gains = sorted(draw(st.lists(st.floats(0.01, 1), min_size=1, max_size=4)), reverse=True)
        losses = [sum(gains[place:]) for place in range(len(gains) + 1)]
        rungs = (Rung(1 + place, step * (1 + place), loss) for place, loss in enumerate(losses))
        found.append(Ladder(str(number), tuple(rungs)))
    return found


@given(ladders(), st.integers(0, 30))
def test_the_budget_holds_and_one_step_is_all_that_is_lost(places: list[Ladder], spare: int) -> None:
    budget = sum(ladder.rungs[0].parameters for ladder in places) + spare
    chosen = climb(places, budget)
    assert sum(rung.parameters for rung in chosen) <= budget
    fitting = [
        option
        for option in product(*(ladder.rungs for ladder in places))
        if sum(rung.parameters for rung in option) <= budget
    ]
    best = min(sum(rung.loss for rung in option) for option in fitting)
    steps = [
        a.loss - b.loss for ladder in places for a, b in zip(ladder.rungs, ladder.rungs[1:], strict=False)
    ]
    assert sum(rung.loss for rung in chosen) <= best + max(steps) + 1e-9


def test_the_step_that_gains_most_comes_first() -> None:
    steep = Ladder("steep", (Rung(1, 10, 0.9), Rung(2, 20, 0.1), Rung(3, 30, 0.0)))
    flat = Ladder("flat", (Rung(1, 10, 0.3), Rung(2, 20, 0.2), Rung(3, 30, 0.0)))
    assert [rung.width for rung in climb([steep, flat], 30)] == [2, 1]
    # over the hull of the flat one: its two steps together gain more than the last of the steep one
    assert [rung.width for rung in climb([steep, flat], 50)] == [2, 3]


def test_a_rung_that_loses_no_less_is_never_taken() -> None:
    idle = Ladder("idle", (Rung(1, 10, 0.0), Rung(2, 20, 0.0)))
    assert [rung.width for rung in climb([idle], 100)] == [1]


def test_too_small_a_budget() -> None:
    with pytest.raises(ValueError, match="5 parameters are fewer than the smallest widths cost"):
        climb([Ladder("one", (Rung(1, 10, 0.5),))], 5)
