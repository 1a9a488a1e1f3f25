"""The front against every mix there is."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as some

from latentc.passes.front import Mix, Way, best_within, front, lower_hull

ways = some.lists(
    some.builds(Way, some.just(0), some.integers(1, 40), some.floats(0, 1)), min_size=1, max_size=4
)
layers = some.dictionaries(some.sampled_from("abcd"), ways, min_size=1, max_size=4)

STRAIGHT = 1e-8
"""What a hull may be bent and still count as straight, 1e-9 of a gain, for losses of up to 4 in all."""


@given(layers)
def test_no_mix_is_smaller_and_better_than_one_on_the_front(given_layers: dict[str, list[Way[int]]]) -> None:
    everything = [
        (sum(way.cost for way in mix), sum(way.loss for way in mix))
        for mix in product(*given_layers.values())
    ]
    for point in front(given_layers):
        assert not any(size <= point.cost and loss < point.loss - STRAIGHT for size, loss in everything), (
            point
        )


@given(layers)
def test_the_front_goes_from_the_smallest_to_the_best(given_layers: dict[str, list[Way[int]]]) -> None:
    points = list(front(given_layers))
    assert points[0].cost == sum(min(way.cost for way in ways) for ways in given_layers.values())
    assert points[-1].loss == pytest.approx(
        sum(min(way.loss for way in ways) for ways in given_layers.values())
    )
    for before, after in pairwise(points):
        assert before.cost < after.cost
        assert before.loss > after.loss or before.loss == pytest.approx(after.loss, abs=1e-12)


@given(layers, some.integers(0, 160))
def test_within_the_budget_and_no_worse_than_the_front(
    given_layers: dict[str, list[Way[int]]], budget: int
) -> None:
    mix = best_within(given_layers, budget)
    within = [point for point in front(given_layers) if point.cost <= budget]
    if mix is None:
        assert within == []
    else:
        assert mix.cost <= budget
        assert mix.loss <= min(point.loss for point in within) + 1e-12


@some.composite
def steady_layers(draw: some.DrawFn) -> dict[str, list[Way[int]]]:
    """Layers of equal steps whose gains fall, as those of singular values do."""
    found = {}
    for number in range(draw(some.integers(1, 3))):
        step = draw(some.integers(1, 5))
        gains = sorted(draw(some.lists(some.floats(0.01, 1), min_size=1, max_size=4)), reverse=True)
        losses = [sum(gains[place:]) for place in range(len(gains) + 1)]
        found[str(number)] = [Way(place, step * place, loss) for place, loss in enumerate(losses, start=1)]
    return found


@given(steady_layers(), some.integers(0, 30))
def test_the_budget_holds_and_one_step_is_all_that_is_lost(
    given_layers: dict[str, list[Way[int]]], spare: int
) -> None:
    budget = sum(ways[0].cost for ways in given_layers.values()) + spare
    mix = best_within(given_layers, budget)
    assert mix is not None
    assert mix.cost <= budget
    everything = [
        Mix(dict(zip(given_layers, taken, strict=True))) for taken in product(*given_layers.values())
    ]
    best = min(one.loss for one in everything if one.cost <= budget)
    largest_step = max(a.loss - b.loss for ways in given_layers.values() for a, b in pairwise(ways))
    assert mix.loss <= best + largest_step + STRAIGHT


def test_ways_on_one_line_stay_and_use_the_budget_up() -> None:
    thirds = [Way(number, 10 * number, 1 - number / 3) for number in range(4)]  # 1/3 is no round number
    assert [way.kind for way in lower_hull(thirds)] == [0, 1, 2, 3]
    mix = best_within({"only": thirds}, 25)
    assert mix is not None
    assert mix.ways["only"].kind == 2


def test_steps_of_one_layer_are_bought_in_their_order() -> None:
    # the second step gains more than the first, by rounding, and stays the second
    bent = [Way("none", 0, 1.0), Way("one", 10, 0.5 + 1e-12), Way("two", 20, 0.0)]
    assert [mix.ways["only"].kind for mix in front({"only": bent})] == ["none", "one", "two"]
    mix = best_within({"only": bent}, 20)
    assert mix is not None
    assert mix.ways["only"].kind == "two"


def test_a_way_that_loses_no_less_is_never_taken() -> None:
    assert [way.kind for way in lower_hull([Way("small", 10, 0.0), Way("large", 20, 0.0)])] == ["small"]


def test_too_small_a_budget() -> None:
    assert best_within({"one": [Way("only", 10, 0.5)]}, 5) is None


def test_what_is_left_of_a_budget_goes_to_others() -> None:
    large = [Way("small", 10, 1.0), Way("large", 100, 0.0)]  # 0.011 a byte
    other = [Way("small", 10, 0.5), Way("large", 60, 0.0)]  # 0.010 a byte
    mix = best_within({"first": large, "second": other}, 80)
    assert mix is not None
    assert {name: way.kind for name, way in mix.ways.items()} == {"first": "small", "second": "large"}


def test_a_way_between_two_better_ones_is_not_on_the_hull() -> None:
    kinds = [way.kind for way in lower_hull([Way("a", 0, 1.0), Way("b", 5, 0.9), Way("c", 10, 0.0)])]
    assert kinds == ["a", "c"]
