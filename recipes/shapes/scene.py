"""What a demo picture shows: one or two coloured shapes on a plain background."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import product

from latentc.errors import RecipeError

HELD_OUT_PERCENT = 5


class Shape(str, Enum):
    """Outline of a thing."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"


class Colour(str, Enum):
    """Fill of a thing."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    CYAN = "cyan"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"


class Size(str, Enum):
    """Extent of a thing relative to the picture."""

    SMALL = "small"
    LARGE = "large"


class Background(str, Enum):
    """Plain colour behind the things."""

    WHITE = "white"
    GRAY = "gray"
    BLACK = "black"
    BROWN = "brown"


class Position(str, Enum):
    """Where a single thing stands, on a grid of three by three."""

    TOP_LEFT = "top left"
    TOP = "top"
    TOP_RIGHT = "top right"
    LEFT = "left"
    CENTER = "center"
    RIGHT = "right"
    BOTTOM_LEFT = "bottom left"
    BOTTOM = "bottom"
    BOTTOM_RIGHT = "bottom right"


class Relation(str, Enum):
    """How the first of two things stands to the second; the inverses are said by swapping the things."""

    LEFT_OF = "left of"
    ABOVE = "above"


@dataclass(frozen=True, slots=True)
class Thing:
    """One coloured shape."""

    size: Size
    colour: Colour
    shape: Shape


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a caption says and a picture must show.

    Args:
        background: plain colour behind everything.
        things: one thing, or two with the left or upper one first.
        placement: a ``Position`` for one thing, a ``Relation`` for two.

    Raises:
        RecipeError: number of things and kind of placement do not fit together.
    """

    background: Background
    things: tuple[Thing, ...]
    placement: Position | Relation

    def __post_init__(self) -> None:
        wanted = {1: Position, 2: Relation}.get(len(self.things))
        if wanted is None or not isinstance(self.placement, wanted):
            raise RecipeError(
                "scene",
                f"{len(self.things)} things with placement '{self.placement.value}' is not a scene",
                "give one thing with a Position, or two things with a Relation",
            )

    @property
    def key(self) -> str:
        """Text that is different for different scenes and never changes between versions."""
        things = ";".join(
            f"{thing.size.value} {thing.colour.value} {thing.shape.value}" for thing in self.things
        )
        return f"{things}|{self.placement.value}|{self.background.value}"


def every_thing() -> Iterator[Thing]:
    """All things, in a fixed order."""
    for size, colour, shape in product(Size, Colour, Shape):
        yield Thing(size, colour, shape)


def every_scene() -> Iterator[Scene]:
    """All scenes of the grammar, each once, in a fixed order."""
    things = tuple(every_thing())
    for background, position, thing in product(Background, Position, things):
        yield Scene(background, (thing,), position)
    for background, relation, first, second in product(Background, Relation, things, things):
        yield Scene(background, (first, second), relation)


def count_scenes() -> int:
    """How many different scenes ``every_scene`` yields, without walking them."""
    things = len(Size) * len(Colour) * len(Shape)
    return len(Background) * (len(Position) * things + len(Relation) * things**2)


def is_held_out(scene: Scene) -> bool:
    """Whether no model may see ``scene`` in training; depends on the scene's key alone."""
    digest = hashlib.sha256(scene.key.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def scenes_for_training() -> tuple[Scene, ...]:
    """All scenes that models may be trained on, in a fixed order."""
    return tuple(scene for scene in every_scene() if not is_held_out(scene))


def scenes_held_out() -> tuple[Scene, ...]:
    """All scenes kept for measuring, in an order fixed by their digests: any prefix is a fair sample."""
    kept = [scene for scene in every_scene() if is_held_out(scene)]
    return tuple(sorted(kept, key=lambda scene: hashlib.sha256(f"order {scene.key}".encode()).digest()))
