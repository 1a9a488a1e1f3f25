"""Options: the fields of a pass, checked by type and range, printed as text.

A field says its limits in its metadata: ``rank: int = field(default=32, metadata=limits(1, 4096, "…"))``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, get_type_hints

from latentc.errors import ModelError, PassError, nearest
from latentc.recipes.choice import Choice

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Setting: TypeAlias = "bool | int | float | str | Path | Choice | tuple[str, ...]"

BARE_WORD = re.compile(r"(?!(?:true|false)\Z)(?!\.\d)[A-Za-z_./*?][\w./*?-]*", re.ASCII)


@dataclass(frozen=True)
class Option:
    """One option of a pass, as ``latentc passes`` shows it.

    Args:
        name: as written in recipes.
        kind: the type of its value.
        default: its value when left out; None when it must be given.
        minimum: smallest number allowed, included; None when there is no limit.
        maximum: largest number allowed, included.
        help: one line.
    """

    name: str
    kind: type
    default: Setting | None
    minimum: float | None
    maximum: float | None
    help: str

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        if issubclass(self.kind, Choice):
            return f"one of {', '.join(str(member) for member in self.kind)}"
        words = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            tuple: "a list of texts",
            Path: "a path",
        }
        text = words.get(self.kind, "a text")
        if self.minimum is not None and self.maximum is not None:
            return f"{text} from {self.minimum} to {self.maximum}"
        return text

    def accepts(self, value: object) -> bool:
        """Whether ``value`` has this option's type and lies in its range."""
        if self.kind is tuple:
            return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            return False
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low = -math.inf if self.minimum is None else self.minimum
            high = math.inf if self.maximum is None else self.maximum
            return math.isfinite(value) and low <= value <= high
        return True

    def setting_from_json(self, value: Json) -> object:
        """``value`` as this option's type where that is plain to see, unchanged otherwise."""
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.kind is tuple and isinstance(value, list):
            return tuple(value)
        if self.kind is Path and isinstance(value, str) and value:
            return Path(value)
        if issubclass(self.kind, Choice) and value in [str(member) for member in self.kind]:
            return self.kind(value)
        return value


def limits(minimum: float | None, maximum: float | None, words: str) -> Mapping[str, object]:
    """Metadata of an option's field: its range, both ends included, and one line of help."""
    return {"minimum": minimum, "maximum": maximum, "help": words}


def options_of(pass_class: type[DataclassInstance]) -> tuple[Option, ...]:
    """The options of a pass class: its own first, then those of its bases, the nearest base first."""
    hints = get_type_hints(pass_class)
    entries = {entry.name: entry for entry in fields(pass_class)}
    names = dict.fromkeys(name for level in pass_class.__mro__ for name in get_annotations(level))
    return tuple(_option(entries[name], hints[name]) for name in names if name in entries)


def _option(entry: Field[object], hint: type) -> Option:
    kind = tuple if getattr(hint, "__origin__", None) is tuple else hint
    default = None if entry.default is MISSING else entry.default
    return Option(
        entry.name,
        kind,
        default,  # type: ignore[arg-type] # a field's default has the field's own type
        entry.metadata.get("minimum"),
        entry.metadata.get("maximum"),
        entry.metadata.get("help", ""),
    )


def check_settings(name: str, instance: DataclassInstance) -> None:
    """Raise PassError for the first option of the pass called ``name`` that is mistyped or out of range."""
    for option in options_of(type(instance)):
        value = getattr(instance, option.name)
        if not option.accepts(value):
            raise PassError(
                f"{name}.{option.name}",
                f"is {text_of_setting(value)}, wanted {option.wanted}",
                _example(option, value),
            )


def require_power_of_two(pass_name: str, number: int, option: str = "group", usual: int = 64) -> None:
    """Raise PassError when ``number`` is no power of two, as runtimes want groups and Hadamard's blocks are.

    Args:
        pass_name: whose option it is.
        number: what was given, 1 or more.
        option: its name.
        usual: a value that is offered instead.
    """
    if number & (number - 1):
        raise PassError(
            f"{pass_name}.{option}", f"is {number}, wanted a power of two", f"write {option}={usual}"
        )


def require_4_or_8_bits(pass_name: str, bits: int) -> None:
    """Raise PassError when ``bits``, of activations, are neither 4 nor 8."""
    if bits not in (4, 8):
        raise PassError(f"{pass_name}.bits", f"is {bits}, wanted 4 or 8", "write bits=4")


def _example(option: Option, value: object) -> str:
    if issubclass(option.kind, Choice) and isinstance(value, str):
        return nearest(value, [str(member) for member in option.kind])
    if option.default is None:
        return f"give {option.name} {option.wanted}"
    return f"leave it out for the default, {option.name}={text_of_setting(option.default)}"


def text_of_setting(value: object) -> str:
    """``value`` as written inside the braces of a pass's text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(text_of_setting(item) for item in value)}]"
    text = str(value)
    return text if BARE_WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def text_of_options(name: str, instance: DataclassInstance) -> str:
    """``name{option=value, …}`` with the options that differ from their defaults."""
    written = [
        f"{option.name}={text_of_setting(getattr(instance, option.name))}"
        for option in options_of(type(instance))
        if getattr(instance, option.name) != option.default
    ]
    return f"{name}{{{', '.join(written)}}}" if written else name


def json_of_setting(value: Setting) -> Json:
    """``value`` as JSON for a digest; a path becomes the SHA-256 of what lies there, not its name."""
    if isinstance(value, Path):
        return f"sha256:{_sha256_of(value)}"
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Choice) else value


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        for file in (file for file in files if not file.is_dir()):
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise ModelError(
            str(path), f"cannot be read: {error.strerror}", "check the path in the recipe"
        ) from error
    return digest.hexdigest()
