"""The attribute checker: what does a picture show, and is that what the scene asks for?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from latentc.errors import UsageError
from latentc.recipes.shapes.render import (
    BACKGROUNDS,
    PALETTE,
    RADII,
    Picture,
    Style,
    ink,
    outline_points,
    pastel,
)
from latentc.recipes.shapes.scene import Background, Colour, Position, Relation, Scene, Shape, Size, Thing

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.floating]
Named = TypeVar("Named", Background, Colour)

_SPECK_SHARE = 0.002
"""Connected areas below this share of the picture are noise, not things; a small star covers 0.016."""
_CONTRAST = 55.0
"""RGB distance from the background at which a pixel belongs to a thing; the faintest pair differs by 83."""
_COLOUR_TOLERANCE = 75.0
"""RGB distance at which a fill or background is no longer any colour of the palette."""
_PLACE_TOLERANCE = 0.10
"""How far a thing may stand from its place, as a share of the side; neighbours are 0.25 apart."""
_LEAST_OVERLAP = 0.70
"""Soft intersection over union below which a thing has no shape of ours."""
_INK_TOLERANCE = 80.0
"""RGB distance from the outline's ink at which a pixel counts as outline."""
_INK_SHARE = 0.12
"""Share of a thing that is ink from which it is outlined; flat things hold none."""
_GRID = 24


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing found in a picture; ``None`` where it fits no word of the grammar.

    Args:
        x, y: centre as shares of the side, y downwards.
        extent: half of the larger side of its box, as a share of the side.
        overlap: how well the best shape covers it, 0 to 1.
    """

    size: Size | None
    colour: Colour | None
    shape: Shape | None
    x: float
    y: float
    extent: float
    overlap: float
    outlined: bool


@dataclass(frozen=True, slots=True)
class PictureReading:
    """All that was found in a picture; things from left to right, or from top to bottom."""

    background: Background | None
    things: tuple[Seen, ...]
    placement: Position | Relation | None

    @property
    def scene(self) -> Scene | None:
        """The scene this picture shows, or ``None`` when some part of it fits no word."""
        if self.background is None or self.placement is None:
            return None
        things = []
        for seen in self.things:
            if seen.size is None or seen.colour is None or seen.shape is None:
                return None
            things.append(Thing(seen.size, seen.colour, seen.shape))
        return Scene(self.background, tuple(things), self.placement)

    @property
    def style(self) -> Style:
        """Outlined if every thing has an outline, else flat."""
        outlined = bool(self.things) and all(seen.outlined for seen in self.things)
        return Style.OUTLINED if outlined else Style.FLAT


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which attributes of a scene a picture shows; with a wrong count nothing about the things is right."""

    background: bool
    count: bool
    placement: bool
    size: bool
    colour: bool
    shape: bool

    @property
    def entirely_right(self) -> bool:
        """Whether nothing at all is wrong."""
        return all(self.by_attribute.values())

    @property
    def by_attribute(self) -> Mapping[str, bool]:
        """The verdicts by name, for reports."""
        return {
            "background": self.background,
            "count": self.count,
            "placement": self.placement,
            "size": self.size,
            "colour": self.colour,
            "shape": self.shape,
        }


def shows(picture: Picture, scene: Scene) -> Verdict:
    """Check ``picture`` ([H, W, 3] uint8, H equal to W) against ``scene``, attribute by attribute."""
    reading = read(picture)
    things = reading.things
    counted = len(things) == len(scene.things)
    pairs = list(zip(things, scene.things, strict=True)) if counted else []
    return Verdict(
        background=reading.background is scene.background,
        count=counted,
        placement=counted and reading.placement is scene.placement,
        size=counted and all(seen.size is thing.size for seen, thing in pairs),
        colour=counted and all(seen.colour is thing.colour for seen, thing in pairs),
        shape=counted and all(seen.shape is thing.shape for seen, thing in pairs),
    )


def read(picture: Picture) -> PictureReading:
    """Find background, things and placement.

    Args:
        picture: [H, W, 3] uint8 RGB, H equal to W and at least 32.

    Raises:
        UsageError: ``picture`` has another shape or type.
    """
    height, width = picture.shape[:2]
    if (
        picture.ndim != 3
        or picture.shape[2] != 3
        or picture.dtype != np.uint8
        or height != width
        or height < 32
    ):
        raise UsageError(
            "picture",
            f"{list(picture.shape)} {picture.dtype} is not a square RGB picture of 32 pixels or more",
            "give uint8 [H, W, 3] with H equal to W",
        )
    pixels = picture.astype(np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    behind: Array = np.median(border, axis=0)
    background = _nearest(behind, BACKGROUNDS, _COLOUR_TOLERANCE)
    contrast: Array = np.linalg.norm(pixels - behind, axis=2)
    areas = [area for area in _connected(contrast > _CONTRAST) if area.sum() >= _SPECK_SHARE * height * width]
    things = [_see(pixels, behind, contrast, area, background) for area in areas]
    placement, ordered = _place(things)
    return PictureReading(background, ordered, placement)


def _place(things: list[Seen]) -> tuple[Position | Relation | None, tuple[Seen, ...]]:
    if len(things) == 1:
        column, row = (_third(things[0].x), _third(things[0].y))
        if column is None or row is None:
            return None, tuple(things)
        return list(Position)[3 * row + column], tuple(things)
    if len(things) != 2:
        return None, tuple(things)
    across = abs(things[0].x - things[1].x) > abs(things[0].y - things[1].y)
    ordered = tuple(sorted(things, key=lambda seen: seen.x if across else seen.y))
    along = [_third(seen.x if across else seen.y) for seen in ordered]
    beside = [_third(seen.y if across else seen.x) for seen in ordered]
    if along != [0, 2] or beside != [1, 1]:
        return None, ordered
    return (Relation.LEFT_OF if across else Relation.ABOVE), ordered


def _third(share: float) -> int | None:
    """Which of the three places along an axis ``share`` is at, if any."""
    for index, place in enumerate((0.25, 0.5, 0.75)):
        if abs(share - place) <= _PLACE_TOLERANCE:
            return index
    return None


def _see(pixels: Array, behind: Array, contrast: Array, area: Mask, background: Background | None) -> Seen:
    """Describe the thing that covers ``area``."""
    side = len(pixels)
    inside = _eroded(area)
    core = _eroded(inside)
    line = np.asarray(ink(background), np.float32) if background else behind
    from_line: Array = np.linalg.norm(pixels - line, axis=2)
    outlined = background is not None and bool(np.mean(from_line[area] < _INK_TOLERANCE) > _INK_SHARE)
    if outlined:
        chosen = inside & (from_line >= np.quantile(from_line[inside], 0.75)) if inside.any() else area
        fill: Array = np.median(pixels[chosen], axis=0)
        colour = _nearest_pastel(fill, line)
        edge = max(float(np.linalg.norm(line - behind)), 1.0)
    else:
        fill = np.median(pixels[core if core.sum() >= 4 else inside if inside.any() else area], axis=0)
        colour = _nearest(fill, PALETTE, _COLOUR_TOLERANCE)
        edge = max(float(np.linalg.norm(fill - behind)), 1.0)
    near = _grown(area)
    cover: Array = np.where(near, np.clip(contrast / edge, 0, 1), 0).astype(np.float32)
    cover[inside] = 1.0
    left, right = _ends(cover.max(axis=0))
    top, bottom = _ends(cover.max(axis=1))
    x, y = (left + right) / 2, (top + bottom) / 2
    extent = max(right - left, bottom - top) / 2
    shape, overlap = _fit(cover, x, y, extent)
    return Seen(
        size=_size(extent / side / _box(shape)[2]),
        colour=colour,
        shape=shape if overlap >= _LEAST_OVERLAP else None,
        x=x / side,
        y=y / side,
        extent=extent / side,
        overlap=overlap,
        outlined=outlined,
    )


def _size(radius: float) -> Size | None:
    """Small or large, with the border halfway; nothing that is a third off either."""
    small, large = RADII[Size.SMALL], RADII[Size.LARGE]
    if not 0.67 * small <= radius <= 1.33 * large:
        return None
    return Size.SMALL if radius < (small + large) / 2 else Size.LARGE


def _ends(profile: Array) -> tuple[float, float]:
    """Where a profile first and last crosses one half, in pixels with parts."""
    above = np.flatnonzero(profile >= 0.5)
    if len(above) == 0:
        return 0.0, 1.0
    first, last = int(above[0]), int(above[-1])
    before = float(profile[first - 1]) if first > 0 else 0.0
    after = float(profile[last + 1]) if last + 1 < len(profile) else 0.0
    return first - min(before, 1.0), last + 1 + min(after, 1.0)


def _fit(cover: Array, x: float, y: float, extent: float) -> tuple[Shape, float]:
    """The shape that covers the thing best, and its soft intersection over union."""
    steps = (np.arange(_GRID, dtype=np.float32) + 0.5) / _GRID * 2 - 1
    reach = extent * 1.1
    sample = _sample(cover, x - 0.5 + reach * steps, y - 0.5 + reach * steps)
    scores = {}
    for shape in Shape:
        template = _template(shape, max(4, round(extent * 4)))
        scores[shape] = float(np.minimum(sample, template).sum() / np.maximum(sample, template).sum())
    best = max(scores, key=lambda shape: scores[shape])
    return best, scores[best]


@cache
def _box(shape: Shape) -> tuple[float, float, float]:
    """Centre and half extent of a shape's box, in units of its radius."""
    xs, ys = zip(*outline_points(shape), strict=True)
    return (
        (max(xs) + min(xs)) / 2,
        (max(ys) + min(ys)) / 2,
        max(max(xs) - min(xs), max(ys) - min(ys)) / 2,
    )


@lru_cache(maxsize=4096)
def _template(shape: Shape, extent_quarters: int) -> Array:
    """[24, 24] coverage of a shape whose box is centred, as soft at its edges as pixels make it."""
    fine = 8
    canvas = _GRID * fine
    image = Image.new("L", (canvas, canvas), 0)
    dx, dy, half = _box(shape)
    scale = canvas / 2 / (1.1 * half)
    corners = [
        (canvas / 2 + (px - dx) * scale, canvas / 2 + (py - dy) * scale) for px, py in outline_points(shape)
    ]
    ImageDraw.Draw(image).polygon(corners, fill=255)
    pixel = canvas / (2.2 * extent_quarters / 4)
    return np.asarray(_blurred(np.asarray(image, np.float32) / 255, pixel, fine), np.float32)


def _blurred(image: Numbers, pixel: float, fine: int) -> Array:
    """Average over a pixel's box on both axes, then over each grid cell."""
    width = max(1, round(pixel))
    kernel = np.ones(width, np.float32) / width
    rows = np.apply_along_axis(lambda line: np.convolve(line, kernel, mode="same"), 1, image)
    both = np.apply_along_axis(lambda line: np.convolve(line, kernel, mode="same"), 0, rows)
    cells: Array = both.reshape(_GRID, fine, _GRID, fine).mean(axis=(1, 3)).astype(np.float32)
    return cells


def _sample(image: Array, columns: Numbers, rows: Numbers) -> Array:
    """Bilinear samples of ``image`` on a grid, zero outside."""
    padded = np.pad(image, 2)
    x = np.clip(columns + 2, 0, padded.shape[1] - 2)
    y = np.clip(rows + 2, 0, padded.shape[0] - 2)
    x0, y0 = x.astype(int), y.astype(int)
    fx, fy = (x - x0)[None, :], (y - y0)[:, None]
    upper = padded[np.ix_(y0, x0)] * (1 - fx) + padded[np.ix_(y0, x0 + 1)] * fx
    lower = padded[np.ix_(y0 + 1, x0)] * (1 - fx) + padded[np.ix_(y0 + 1, x0 + 1)] * fx
    mixed: Array = (upper * (1 - fy) + lower * fy).astype(np.float32)
    return mixed


def _nearest_pastel(seen: Array, line: Array) -> Colour | None:
    """The colour whose pastel, mixed with up to half of outline, comes nearest; small fills are all mixed."""
    distances = {}
    for colour in Colour:
        towards = np.asarray(pastel(colour), np.float32) - line
        share = float(np.clip((seen - line) @ towards / (towards @ towards), 0.5, 1.0))
        distances[colour] = float(np.linalg.norm(line + share * towards - seen))
    best = min(distances, key=lambda colour: distances[colour])
    return best if distances[best] <= _COLOUR_TOLERANCE else None


def _nearest(seen: Array, named: Mapping[Named, tuple[int, int, int]], tolerance: float) -> Named | None:
    distances = {name: float(np.linalg.norm(seen - np.asarray(rgb))) for name, rgb in named.items()}
    best = min(distances, key=lambda name: distances[name])
    return best if distances[best] <= tolerance else None


def _grown(area: Mask) -> Mask:
    padded = np.pad(area, 1)
    grown: Mask = np.zeros_like(area)
    for dy in range(3):
        for dx in range(3):
            grown |= padded[dy : dy + area.shape[0], dx : dx + area.shape[1]]
    return grown


def _eroded(area: Mask) -> Mask:
    padded = np.pad(area, 1)
    return padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _connected(mask: Mask) -> list[Mask]:
    """Areas of ``mask`` that hang together, side by side or corner to corner."""
    left = mask.copy()
    areas = []
    while left.any():
        start = np.unravel_index(int(np.argmax(left)), left.shape)
        area: Mask = np.zeros_like(mask)
        area[start] = True
        while True:
            grown = _grown(area) & left
            if (grown == area).all():
                break
            area = grown
        left &= ~area
        areas.append(area)
    return areas
