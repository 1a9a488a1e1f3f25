"""The front against every mix there is."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as some

from latentc.passes.front import Way, best_within, front, lower_hull

ways = some.lists(
    some.builds(Way, some.just(0), some.integers(1, 40), some.floats(0, 1)), min_size=1, max_size=4
)
layers = some.dictionaries(some.sampled_from("abcd"), ways, min_size=1, max_size=4)


@given(layers)
def test_no_mix_is_smaller_and_better_than_one_on_the_front(given_layers: dict[str, list[Way[int]]]) -> None:
    everything = [
        (sum(way.size_bytes for way in mix), sum(way.loss for way in mix))
        for mix in product(*given_layers.values())
    ]
    for point in front(given_layers):
        assert not any(size <= point.size_bytes and loss < point.loss - 1e-12 for size, loss in everything), (
            point
        )


@given(layers)
def test_the_front_goes_from_the_smallest_to_the_best(given_layers: dict[str, list[Way[int]]]) -> None:
    points = list(front(given_layers))
    assert points[0].size_bytes == sum(min(way.size_bytes for way in ways) for ways in given_layers.values())
    assert points[-1].loss == pytest.approx(
        sum(min(way.loss for way in ways) for ways in given_layers.values())
    )
    for before, after in pairwise(points):
        assert before.size_bytes < after.size_bytes
        assert before.loss > after.loss or before.loss == pytest.approx(after.loss, abs=1e-12)


@given(layers, some.integers(0, 160))
def test_within_the_budget_and_no_worse_than_the_front(
    given_layers: dict[str, list[Way[int]]], budget: int
) -> None:
    mix = best_within(given_layers, budget)
    within = [point for point in front(given_layers) if point.size_bytes <= budget]
    if mix is None:
        assert within == []
    else:
        assert mix.size_bytes <= budget
        assert mix.loss <= min(point.loss for point in within) + 1e-12


def test_what_is_left_of_a_budget_goes_to_others() -> None:
    large = [Way("small", 10, 1.0), Way("large", 100, 0.0)]  # 0.011 a byte
    other = [Way("small", 10, 0.5), Way("large", 60, 0.0)]  # 0.010 a byte
    mix = best_within({"first": large, "second": other}, 80)
    assert mix is not None
    assert {name: way.kind for name, way in mix.ways.items()} == {"first": "small", "second": "large"}


def test_a_way_between_two_better_ones_is_not_on_the_hull() -> None:
    kinds = [way.kind for way in lower_hull([Way("a", 0, 1.0), Way("b", 5, 0.9), Way("c", 10, 0.0)])]
    assert kinds == ["a", "c"]
