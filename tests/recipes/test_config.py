from __future__ import annotations

from collections.abc import Callable

import pytest

from latentc.errors import ModelError
from latentc.recipes.config import Config, count, number, numbers


def test_numbers_are_read() -> None:
    config = {"width": 3, "blocks": [1, 2], "tuple": (4,)}
    assert number(config, "width") == 3
    assert numbers(config, "blocks") == (1, 2)
    assert (count(config, "blocks"), count(config, "tuple")) == (2, 1)


@pytest.mark.parametrize(
    ("read", "config", "message"),
    [
        (number, {}, "config.json: width: is None, a whole number was expected"),
        (number, {"width": True}, "config.json: width: is True, a whole number was expected"),
        (numbers, {"width": "12"}, "config.json: width: is '12', a list was expected"),
        (numbers, {"width": [1.5]}, "config.json: width: is [1.5], whole numbers were expected"),
        (count, {"width": 2}, "config.json: width: is 2, a list was expected"),
    ],
)
def test_anything_else_is_refused(
    read: Callable[[Config, str], object], config: Config, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        read(config, "width")
    assert str(caught.value) == message
