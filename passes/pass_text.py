"""Pass text: ``split-low-rank{rank=32, skip=[a.*, b]}`` to a pass, and a recipe's options to a pass.

    text   = name [ "{" option "=" value { "," option "=" value } "}" ]
    value  = number | true | false | bare word | JSON string | "[" value { "," value } "]"

``str(pass)`` prints the same text, defaults left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from latentc.errors import PassError, nearest
from latentc.passes.base import Pass
from latentc.passes.catalogue import pass_named
from latentc.passes.options import BARE_WORD, Json, options_of

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_OPTION = re.compile(r"[a-z][a-z0-9_]*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def pass_from_options(name: str, options: Mapping[str, Json]) -> Pass:
    """The pass called ``name`` with ``options`` as a recipe's YAML gives them.

    Raises:
        PassError: there is no such pass or option, one is missing, mistyped or out of its range.
    """
    pass_class = pass_named(name)
    offered = {option.name: option for option in options_of(pass_class)}
    for key in options:
        if key not in offered:
            raise PassError(name, f"has no option '{key}'", nearest(key, offered))
    for option in offered.values():
        if option.default is None and option.name not in options:
            raise PassError(name, f"lacks the option '{option.name}'", f"give {option.name} {option.wanted}")
    settings: dict[str, Any] = {key: offered[key].setting_from_json(value) for key, value in options.items()}
    return pass_class(**settings)  # whose constructor checks types and ranges


def pass_from_text(text: str) -> Pass:
    """The pass that ``text`` describes; the inverse of ``str(pass)``.

    Raises:
        PassError: ``text`` is not of the form above, or does not describe a pass.
    """
    scanner = _Scanner(text)
    name = scanner.take(_NAME, "the name of a pass")
    options: dict[str, Json] = {}
    if scanner.skip("{"):
        while True:
            key = scanner.take(_OPTION, "the name of an option")
            if key in options:
                scanner.fail(f"a second value for '{key}'")
            scanner.expect("=")
            options[key] = scanner.value()
            if scanner.skip("}"):
                break
            scanner.expect(",")
    scanner.end()
    return pass_from_options(name, options)


class _Scanner:
    """Reads pass text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def value(self) -> Json:
        if self.skip("["):
            items: list[Json] = []
            while not self.skip("]"):
                if items:
                    self.expect(",")
                items.append(self.value())
            return items
        if (quoted := self._match(_STRING)) is not None:
            try:
                return str(json.loads(quoted))
            except ValueError:
                self._position -= len(quoted)
                self.fail("a JSON string")
        if (number := self._match(_NUMBER)) is not None:
            return int(number) if re.fullmatch(r"[+-]?\d+", number) else float(number)
        for word, truth in (("true", True), ("false", False)):
            if self._match(re.compile(rf"{word}(?![\w./*?-])")) is not None:
                return truth
        return self.take(BARE_WORD, "a value")

    def take(self, pattern: re.Pattern[str], wanted: str) -> str:
        found = self._match(pattern)
        if found is None:
            self.fail(wanted)
        return found or ""

    def skip(self, sign: str) -> bool:
        return self._match(re.compile(re.escape(sign))) is not None

    def expect(self, sign: str) -> None:
        if not self.skip(sign):
            self.fail(f"'{sign}'")

    def end(self) -> None:
        if self._rest():
            self.fail("nothing more")

    def fail(self, wanted: str) -> None:
        seen = f"'{self._rest()}'" if self._rest() else "the end"
        raise PassError(
            f"pass text '{self._text}'",
            f"at character {self._position + 1}: seen {seen}, wanted {wanted}",
            "write it like split-low-rank{rank=32}",
        )

    def _rest(self) -> str:
        self._position += len(self._text[self._position :]) - len(self._text[self._position :].lstrip())
        return self._text[self._position :]

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        rest = self._rest()
        found = pattern.match(rest)
        if found is None:
            return None
        self._position += found.end()
        return found.group()
