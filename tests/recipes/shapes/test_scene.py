"""The grammar: how many scenes there are, and which of them no model has seen."""

import pytest

from latentc.errors import RecipeError
from latentc.recipes.shapes.scene import (
    Background,
    Colour,
    Position,
    Relation,
    Scene,
    Shape,
    Size,
    Thing,
    count_scenes,
    every_scene,
    is_held_out,
    scenes_for_training,
    scenes_held_out,
)

HELD_OUT_FIRST = [
    "small cyan star|bottom right|white",
    "large yellow cross;small yellow triangle|above|brown",
    "small green star;large green square|above|black",
]
STAR = Thing(Size.SMALL, Colour.BLUE, Shape.STAR)


def test_every_scene_yields_each_of_the_many_scenes_once() -> None:
    keys = {scene.key for scene in every_scene()}
    assert len(keys) == count_scenes() == 54_080
    assert sum(1 for _ in every_scene()) == len(keys)


def test_split_is_complete_disjoint_and_about_five_percent() -> None:
    training, held_out = set(scenes_for_training()), set(scenes_held_out())
    assert not training & held_out
    assert len(training) + len(held_out) == count_scenes()
    assert 0.04 < len(held_out) / count_scenes() < 0.06


def test_split_never_changes() -> None:
    first = scenes_held_out()[:3]
    assert [scene.key for scene in first] == HELD_OUT_FIRST
    assert all(is_held_out(scene) for scene in first)


def test_held_out_prefix_mixes_one_and_two_things() -> None:
    counts = {len(scene.things) for scene in scenes_held_out()[:100]}
    assert counts == {1, 2}


@pytest.mark.parametrize(
    ("things", "placement"),
    [
        ((STAR,), Relation.ABOVE),
        ((STAR, STAR), Position.CENTER),
        ((), Position.TOP),
        ((STAR,) * 3, Relation.ABOVE),
    ],
)
def test_scene_refuses_placements_that_do_not_fit(
    things: tuple[Thing, ...], placement: Position | Relation
) -> None:
    with pytest.raises(RecipeError) as caught:
        Scene(Background.WHITE, things, placement)
    assert str(caught.value) == (
        f"scene: {len(things)} things with placement '{placement.value}' is not a scene\n"
        "fix: give one thing with a Position, or two things with a Relation"
    )
