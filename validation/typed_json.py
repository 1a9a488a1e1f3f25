"""JSON values turned into types once, at the border; a TypeError says what was there instead."""

from __future__ import annotations

import json
from pathlib import Path

from latentc.errors import BundleError
from latentc.runtime.manifest import Json


def json_object(path: Path, fix: str) -> dict[str, Json]:
    """The JSON object in the file ``path``; raises BundleError with ``fix`` when there is none."""
    try:
        data: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(str(path), "does not exist", fix) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(str(path), f"cannot be read: {error}", fix) from error
    if not isinstance(data, dict):
        raise BundleError(str(path), f"holds {_kind(data)} instead of an object", fix)
    return data


def as_text(value: Json) -> str:
    """``value`` if it is a text."""
    if not isinstance(value, str):
        raise TypeError(f"{_kind(value)} where a text is expected")
    return value


def as_number(value: Json) -> float:
    """``value`` if it is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{_kind(value)} where a number is expected")
    return float(value)


def as_count(value: Json) -> int:
    """``value`` if it is a whole number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} where a whole number of 0 or more is expected")
    return value


def as_list(value: Json) -> list[Json]:
    """``value`` if it is a list."""
    if not isinstance(value, list):
        raise TypeError(f"{_kind(value)} where a list is expected")
    return value


def as_object(value: Json) -> dict[str, Json]:
    """``value`` if it is an object."""
    if not isinstance(value, dict):
        raise TypeError(f"{_kind(value)} where an object is expected")
    return value


def _kind(value: Json) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")
