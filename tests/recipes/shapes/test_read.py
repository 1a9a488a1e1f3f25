"""The attribute checker reads rendered pictures right, and lets no wrong one pass."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from latentc.errors import UsageError
from latentc.recipes.shapes.read import read, shows
from latentc.recipes.shapes.render import Picture, Style, render
from latentc.recipes.shapes.scene import (
    Background,
    Colour,
    Position,
    Relation,
    Scene,
    Shape,
    Size,
    Thing,
    every_scene,
)

CIRCLE = Thing(Size.LARGE, Colour.RED, Shape.CIRCLE)
STAR = Thing(Size.SMALL, Colour.BLUE, Shape.STAR)
PAIR = Scene(Background.WHITE, (CIRCLE, STAR), Relation.LEFT_OF)


def sample(count: int) -> list[Scene]:
    scenes = list(every_scene())
    rng = np.random.default_rng(20)
    return [scenes[index] for index in rng.integers(0, len(scenes), count)]


def blurred(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(0.7)))


@pytest.mark.parametrize(("side_pixels", "count"), [(64, 500), (96, 100)])
def test_rendered_scenes_are_read_entirely_right(side_pixels: int, count: int) -> None:
    right = [shows(render(scene, seed, side_pixels), scene) for seed, scene in enumerate(sample(count))]
    assert np.mean([verdict.entirely_right for verdict in right]) >= 0.99


def test_blur_and_noise_of_an_autoencoder_are_forgiven() -> None:
    rng = np.random.default_rng(1)
    right = []
    for seed, scene in enumerate(sample(150)):
        soft = blurred(render(scene, seed)).astype(np.float32) + rng.normal(0, 6, (64, 64, 3))
        right.append(shows(soft.clip(0, 255).astype(np.uint8), scene).entirely_right)
    assert np.mean(right) >= 0.97  # small stars on a near background are the ones that are lost


def test_outlined_pictures_are_read_as_outlined() -> None:
    scenes = sample(150)
    outlined = [render(scene, seed, style=Style.OUTLINED) for seed, scene in enumerate(scenes)]
    assert np.mean([read(picture).style is Style.OUTLINED for picture in outlined]) >= 0.97
    flat = [render(scene, seed) for seed, scene in enumerate(scenes)]
    assert all(read(picture).style is Style.FLAT for picture in flat)


@pytest.mark.parametrize(
    ("attribute", "wrong"),
    [
        ("colour", replace(PAIR, things=(replace(CIRCLE, colour=Colour.ORANGE), STAR))),
        ("colour", replace(PAIR, things=(CIRCLE, replace(STAR, colour=Colour.PURPLE)))),
        ("shape", replace(PAIR, things=(replace(CIRCLE, shape=Shape.SQUARE), STAR))),
        ("shape", replace(PAIR, things=(CIRCLE, replace(STAR, shape=Shape.TRIANGLE)))),
        ("size", replace(PAIR, things=(replace(CIRCLE, size=Size.SMALL), STAR))),
        ("background", replace(PAIR, background=Background.GRAY)),
        ("placement", replace(PAIR, placement=Relation.ABOVE)),
        ("count", Scene(Background.WHITE, (CIRCLE,), Position.LEFT)),
    ],
)
def test_one_wrong_attribute_is_caught_and_named(attribute: str, wrong: Scene) -> None:
    verdict = shows(render(wrong, 5), PAIR)
    assert not verdict.entirely_right
    assert not verdict.by_attribute[attribute]


def test_swapped_things_are_caught() -> None:
    swapped = replace(PAIR, things=PAIR.things[::-1])
    verdict = shows(render(swapped, 5), PAIR)
    right = {name for name, is_right in verdict.by_attribute.items() if is_right}
    assert right == {"background", "count", "placement"}


def test_every_altered_scene_is_caught() -> None:
    scenes = sample(200)
    caught = [
        not shows(render(scene, seed), other).entirely_right
        for seed, (scene, other) in enumerate(zip(scenes[:100], scenes[100:], strict=True))
        if scene != other
    ]
    assert all(caught)


def test_smears_and_extra_things_are_caught() -> None:
    picture = render(PAIR).copy()
    picture[50:60, 4:14] = (35, 160, 65)
    assert not shows(picture, PAIR).count
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert read(grey).things == ()
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert read(noise).scene is None
    half = render(PAIR).copy()
    half[32:, :32] = half[0, 0]
    assert not shows(half, PAIR).entirely_right


@pytest.mark.parametrize(
    "picture",
    [np.zeros((64, 48, 3), np.uint8), np.zeros((16, 16, 3), np.uint8), np.zeros((64, 64, 3), np.float32)],
)
def test_other_pictures_are_refused(picture: Picture) -> None:
    with pytest.raises(UsageError) as caught:
        read(picture)
    assert str(caught.value) == (
        f"picture: {list(picture.shape)} {picture.dtype} is not a square RGB picture of 32 pixels or more\n"
        "fix: give uint8 [H, W, 3] with H equal to W"
    )
