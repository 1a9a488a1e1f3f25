"""The renderer draws the same bytes for the same arguments, and what it is told."""

import numpy as np
import pytest

from latentc.recipes.shapes.render import BACKGROUNDS, PALETTE, Style, centres, pastel, render
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

CIRCLE = Thing(Size.LARGE, Colour.RED, Shape.CIRCLE)
STAR = Thing(Size.SMALL, Colour.BLUE, Shape.STAR)
PAIR = Scene(Background.WHITE, (CIRCLE, STAR), Relation.LEFT_OF)


@pytest.mark.parametrize("style", Style)
def test_same_arguments_same_bytes(style: Style) -> None:
    assert np.array_equal(render(PAIR, 3, style=style), render(PAIR, 3, style=style))
    assert not np.array_equal(render(PAIR, 3, style=style), render(PAIR, 4, style=style))


@pytest.mark.parametrize("side_pixels", [64, 96])
def test_picture_holds_background_and_fills(side_pixels: int) -> None:
    picture = render(PAIR, side_pixels=side_pixels)
    assert picture.shape == (side_pixels, side_pixels, 3)
    assert picture.dtype == np.uint8
    (x, y), (star_x, star_y) = centres(PAIR)
    assert tuple(picture[0, 0]) == BACKGROUNDS[Background.WHITE]
    assert tuple(picture[int(y * side_pixels), int(x * side_pixels)]) == PALETTE[Colour.RED]
    assert tuple(picture[int(star_y * side_pixels), int(star_x * side_pixels)]) == PALETTE[Colour.BLUE]


def test_outlined_style_fills_with_pastel_and_keeps_the_extent() -> None:
    flat, outlined = render(PAIR), render(PAIR, style=Style.OUTLINED)
    assert tuple(outlined[32, 16]) == pastel(Colour.RED)
    behind = np.asarray(BACKGROUNDS[Background.WHITE])
    assert np.array_equal((flat != behind).any(axis=2), (outlined != behind).any(axis=2))


@pytest.mark.parametrize("place", Position)
def test_nothing_reaches_the_border(place: Position) -> None:
    scene = Scene(Background.BLACK, (Thing(Size.LARGE, Colour.CYAN, Shape.SQUARE),), place)
    for seed in range(20):
        picture = render(scene, seed)
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (edge == BACKGROUNDS[Background.BLACK]).all()
