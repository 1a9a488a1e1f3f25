"""Captions and scenes translate into each other without loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.errors import RecipeError
from latentc.recipes.shapes.caption import caption, scene_from_caption
from latentc.recipes.shapes.scene import (
    Background,
    Colour,
    Position,
    Relation,
    Scene,
    Shape,
    Size,
    Thing,
)

things = st.builds(Thing, st.sampled_from(Size), st.sampled_from(Colour), st.sampled_from(Shape))
one = st.builds(Scene, st.sampled_from(Background), st.tuples(things), st.sampled_from(Position))
two = st.builds(Scene, st.sampled_from(Background), st.tuples(things, things), st.sampled_from(Relation))


@given(scene=one | two, seed=st.integers(0, 2**31))
def test_a_caption_says_its_scene_for_every_seed(scene: Scene, seed: int) -> None:
    said = caption(scene, seed)
    assert said == caption(scene, seed)
    assert scene_from_caption(said) == scene


def test_seeds_paraphrase() -> None:
    circle, star = Thing(Size.LARGE, Colour.RED, Shape.CIRCLE), Thing(Size.SMALL, Colour.BLUE, Shape.STAR)
    scene = Scene(Background.WHITE, (circle, star), Relation.LEFT_OF)
    assert caption(scene) == "a large red circle to the left of a small blue star on a white background"
    assert {caption(scene, seed) for seed in range(40)} == {
        "a large red circle to the left of a small blue star on a white background",
        "a small blue star to the right of a large red circle on a white background",
        "on a white background, a large red circle to the left of a small blue star",
        "on a white background, a small blue star to the right of a large red circle",
    }


def test_single_things_name_their_place() -> None:
    star = Thing(Size.SMALL, Colour.BLUE, Shape.STAR)
    said = [caption(Scene(Background.GRAY, (star,), place)) for place in (Position.CENTER, Position.TOP_LEFT)]
    assert said == [
        "a small blue star in the center on a gray background",
        "a small blue star at the top left on a gray background",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "a large red circle on a white background",
        "a large red circle at the top on a white background ",
        "a large mauve circle at the top on a white background",
        "on a white background, a large red circle at the top on a white background",
    ],
)
def test_text_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        scene_from_caption(text)
    assert str(caught.value) == (
        f"caption: '{text}' is not a sentence of the shapes grammar\n"
        "fix: write for example 'a large red circle to the left of a small blue star on a white background'"
    )
