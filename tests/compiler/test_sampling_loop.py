"""Calibration places are spread over steps, prompts and halves, and never asked for twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from latentc.compiler.sampling_loop import Place, spread


@given(
    count=st.integers(1, 200),
    prompts=st.integers(1, 20),
    steps=st.integers(1, 30),
    is_guided=st.booleans(),
)
def test_places_are_distinct_and_within_bounds(count: int, prompts: int, steps: int, is_guided: bool) -> None:
    places = spread(count, prompts, steps, is_guided=is_guided)
    assert len(places) == len(set(places)) == min(count, prompts * steps * (1 + is_guided))
    for place in places:
        assert 0 <= place.prompt < prompts
        assert 0 <= place.step < steps
        assert place.half in ((0, 1) if is_guided else (1,))


@given(prompts=st.integers(1, 20), steps=st.integers(1, 30), rounds=st.integers(1, 3))
def test_every_step_is_met_equally_often(prompts: int, steps: int, rounds: int) -> None:
    if rounds > prompts:
        return
    met = Counter(place.step for place in spread(rounds * steps, prompts, steps, is_guided=False))
    assert set(met) == set(range(steps))
    assert max(met.values()) - min(met.values()) <= 1


def test_a_guided_run_shows_both_halves() -> None:
    halves = Counter(place.half for place in spread(30, 16, 20, is_guided=True))
    assert halves == {1: 20, 0: 10}


def test_few_places_are_in_the_middle_of_their_part_of_the_schedule() -> None:
    assert spread(4, 2, 20, is_guided=False) == (
        Place(0, 2, 1), Place(1, 7, 1), Place(0, 12, 1), Place(1, 17, 1)
    )  # fmt: skip
