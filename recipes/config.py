"""Config: what a component's config.json says of its sizes, read as whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from latentc.errors import ModelError

Config: TypeAlias = Mapping[str, object]
"""A component's config.json, or what its class made of it with its own defaults."""


def number(config: Config, key: str) -> int:
    """The whole number at ``key``; raises ModelError when something else stands there."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelError(f"config.json: {key}", f"is {value!r}, a whole number was expected", "")
    return value


def numbers(config: Config, key: str) -> tuple[int, ...]:
    """The whole numbers at ``key``; raises ModelError when something else stands there."""
    value = config.get(key)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ModelError(f"config.json: {key}", f"is {value!r}, a list was expected", "")
    if not all(isinstance(item, int) for item in value):
        raise ModelError(f"config.json: {key}", f"is {value!r}, whole numbers were expected", "")
    return tuple(value)


def count(config: Config, key: str) -> int:
    """How many items the list at ``key`` has; raises ModelError when something else stands there."""
    value = config.get(key)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ModelError(f"config.json: {key}", f"is {value!r}, a list was expected", "")
    return len(value)
