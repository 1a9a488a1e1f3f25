"""Scene to caption and back: one small English grammar, parsed exactly."""

from __future__ import annotations

import re
from random import Random

from latentc.errors import RecipeError
from latentc.recipes.shapes.scene import Background, Colour, Position, Relation, Scene, Shape, Size, Thing

_THING = "a ({sizes}) ({colours}) ({shapes})".format(
    sizes="|".join(size.value for size in Size),
    colours="|".join(colour.value for colour in Colour),
    shapes="|".join(shape.value for shape in Shape),
)
_BACKGROUND = "a ({}) background".format("|".join(background.value for background in Background))
_RELATIONS: dict[str, tuple[Relation, bool]] = {
    "to the left of": (Relation.LEFT_OF, False),
    "to the right of": (Relation.LEFT_OF, True),
    "above": (Relation.ABOVE, False),
    "below": (Relation.ABOVE, True),
}
_PLACES = {
    ("in the center" if position is Position.CENTER else f"at the {position.value}"): position
    for position in Position
}
_PLACEMENT = f"(?:({'|'.join(_RELATIONS)}) {_THING}|({'|'.join(sorted(_PLACES, key=len, reverse=True))}))"
_FORMS = (
    re.compile(f"(?P<body>{_THING} {_PLACEMENT}) on {_BACKGROUND}"),
    re.compile(f"on {_BACKGROUND}, (?P<body>{_THING} {_PLACEMENT})"),
)
_BODY = re.compile(f"{_THING} {_PLACEMENT}")
_EXAMPLE = "a large red circle to the left of a small blue star on a white background"


def caption(scene: Scene, seed: int = 0) -> str:
    """Say what ``scene`` shows; every seed picks one of the paraphrases, and 0 always the plain one."""
    choice = Random(seed) if seed else None
    behind = f"a {scene.background.value} background"
    if isinstance(scene.placement, Position):
        place = next(words for words, position in _PLACES.items() if position is scene.placement)
        body = f"{_say(scene.things[0])} {place}"
    else:
        swapped = choice is not None and choice.random() < 0.5
        first, second = reversed(scene.things) if swapped else scene.things
        words = next(words for words, meaning in _RELATIONS.items() if meaning == (scene.placement, swapped))
        body = f"{_say(first)} {words} {_say(second)}"
    if choice is not None and choice.random() < 0.35:
        return f"on {behind}, {body}"
    return f"{body} on {behind}"


def scene_from_caption(text: str) -> Scene:
    """Read a caption of the grammar; the inverse of ``caption`` for every seed.

    Raises:
        RecipeError: ``text`` is not exactly a sentence of the grammar.
    """
    for form in _FORMS:
        whole = form.fullmatch(text)
        if whole is None:
            continue
        body = _BODY.fullmatch(whole["body"])
        assert body is not None
        size, colour, shape, relation, size2, colour2, shape2, place = body.groups()
        first = Thing(Size(size), Colour(colour), Shape(shape))
        background = Background(next(word for word in _background_groups(whole) if word))
        if place is not None:
            return Scene(background, (first,), _PLACES[place])
        second = Thing(Size(size2), Colour(colour2), Shape(shape2))
        meaning, swapped = _RELATIONS[relation]
        return Scene(background, (second, first) if swapped else (first, second), meaning)
    raise RecipeError(
        "caption",
        f"'{text}' is not a sentence of the shapes grammar",
        f"write for example '{_EXAMPLE}'",
    )


def _say(thing: Thing) -> str:
    return f"a {thing.size.value} {thing.colour.value} {thing.shape.value}"


def _background_groups(whole: re.Match[str]) -> tuple[str | None, ...]:
    groups = whole.groups()
    return groups[-1:] if whole.start("body") == 0 else groups[:1]
