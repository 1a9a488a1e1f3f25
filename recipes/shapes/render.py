"""Scene to picture: antialiased flat shapes, and the outlined style that only the style LoRA knows."""

from __future__ import annotations

import hashlib
import math
from enum import Enum

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from latentc.recipes.shapes.scene import Background, Colour, Position, Relation, Scene, Shape, Size

Picture = npt.NDArray[np.uint8]

SIDE_PIXELS = 64
JITTER = 0.03
"""Largest shift of a thing from its place, as a share of the picture's side."""

PALETTE: dict[Colour, tuple[int, int, int]] = {
    Colour.RED: (215, 35, 40),
    Colour.ORANGE: (245, 140, 30),
    Colour.YELLOW: (250, 225, 50),
    Colour.GREEN: (35, 160, 65),
    Colour.CYAN: (60, 205, 220),
    Colour.BLUE: (40, 75, 215),
    Colour.PURPLE: (130, 50, 180),
    Colour.PINK: (245, 125, 190),
}
BACKGROUNDS: dict[Background, tuple[int, int, int]] = {
    Background.WHITE: (248, 248, 248),
    Background.GRAY: (128, 128, 128),
    Background.BLACK: (15, 15, 15),
    Background.BROWN: (95, 60, 30),
}
RADII: dict[Size, float] = {Size.SMALL: 0.14, Size.LARGE: 0.20}
"""Half of a thing's extent, as a share of the picture's side."""

OUTLINE = 0.03
"""Width of the outline in the outlined style, as a share of the picture's side."""

_SUPERSAMPLING = 4
_NEAR, _MIDDLE, _FAR = 0.25, 0.5, 0.75


class Style(str, Enum):
    """How things are drawn."""

    FLAT = "flat"
    OUTLINED = "outlined"


def pastel(colour: Colour) -> tuple[int, int, int]:
    """Fill of the outlined style: halfway from the palette's colour to white."""
    red, green, blue = PALETTE[colour]
    return ((red + 255) // 2, (green + 255) // 2, (blue + 255) // 2)


def ink(background: Background) -> tuple[int, int, int]:
    """Outline of the outlined style: whichever of near-black and near-white stands out."""
    dark = background in (Background.BLACK, Background.BROWN)
    return (245, 245, 245) if dark else (20, 20, 30)


def centres(scene: Scene) -> tuple[tuple[float, float], ...]:
    """Where the things of ``scene`` stand before jitter: (x, y) as shares of the side, y downwards."""
    if scene.placement is Relation.LEFT_OF:
        return ((_NEAR, _MIDDLE), (_FAR, _MIDDLE))
    if scene.placement is Relation.ABOVE:
        return ((_MIDDLE, _NEAR), (_MIDDLE, _FAR))
    row, column = divmod(list(Position).index(Position(scene.placement)), 3)
    places = (_NEAR, _MIDDLE, _FAR)
    return ((places[column], places[row]),)


def outline_points(shape: Shape) -> tuple[tuple[float, float], ...]:
    """Corners of ``shape`` within [-1, 1] on both axes, y downwards; a circle is a fine polygon."""
    if shape is Shape.SQUARE:
        return ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9))
    if shape is Shape.TRIANGLE:
        return ((0.0, -1.0), (1.0, 0.9), (-1.0, 0.9))
    if shape is Shape.CROSS:
        a = 0.34
        return (
            (-a, -1.0), (a, -1.0), (a, -a), (1.0, -a), (1.0, a), (a, a),
            (a, 1.0), (-a, 1.0), (-a, a), (-1.0, a), (-1.0, -a), (-a, -a),
        )  # fmt: skip
    corners = 64 if shape is Shape.CIRCLE else 10
    points = []
    for corner in range(corners):
        radius = 0.45 if shape is Shape.STAR and corner % 2 else 1.0
        angle = 2 * math.pi * corner / corners - math.pi / 2
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return tuple(points)


def render(scene: Scene, seed: int = 0, side_pixels: int = SIDE_PIXELS, style: Style = Style.FLAT) -> Picture:
    """Draw ``scene``.

    Args:
        scene: what to show.
        seed: picks the jitter of each thing; 0 means none.
        side_pixels: height and width of the picture.
        style: flat, or with an outline and pastel fill.

    Returns:
        [H, W, 3] uint8 RGB; the same bytes for the same arguments.
    """
    canvas_pixels = side_pixels * _SUPERSAMPLING
    image = Image.new("RGB", (canvas_pixels, canvas_pixels), BACKGROUNDS[scene.background])
    draw = ImageDraw.Draw(image)
    shifts = _shifts(scene, seed)
    for thing, (x, y), (dx, dy) in zip(scene.things, centres(scene), shifts, strict=True):
        radius = RADII[thing.size] * canvas_pixels
        corners = [
            ((x + dx) * canvas_pixels + px * radius, (y + dy) * canvas_pixels + py * radius)
            for px, py in outline_points(thing.shape)
        ]
        if style is Style.FLAT:
            draw.polygon(corners, fill=PALETTE[thing.colour])
        else:
            _draw_outlined(image, corners, pastel(thing.colour), ink(scene.background))
    return np.asarray(image.reduce(_SUPERSAMPLING), dtype=np.uint8)


def _draw_outlined(
    image: Image.Image,
    corners: list[tuple[float, float]],
    fill: tuple[int, int, int],
    line: tuple[int, int, int],
) -> None:
    """Paint a shape whose outline lies within its edge, so that the style does not change the size."""
    whole = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(whole)
    draw.polygon(corners, fill=255)
    image.paste(line, mask=whole)
    width = round(2 * OUTLINE * image.size[0])
    draw.line([*corners, corners[0], corners[1]], fill=0, width=width, joint="curve")
    image.paste(fill, mask=whole)


def _shifts(scene: Scene, seed: int) -> tuple[tuple[float, float], ...]:
    if seed == 0:
        return tuple((0.0, 0.0) for _ in scene.things)
    digest = hashlib.sha256(f"{scene.key} {seed}".encode()).digest()
    parts = [int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in range(0, 16, 4)]
    moves = [(2 * part - 1) * JITTER for part in parts]
    return tuple((moves[2 * i], moves[2 * i + 1]) for i in range(len(scene.things)))
