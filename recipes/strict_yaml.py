"""Strict YAML: what a recipe may be written in, and how one is written. The only file that knows PyYAML.

Plain YAML surprises: duplicate keys silently win, ``no`` is False, ``1e-3`` a string, ``012`` ten, and a
few hundred bytes of aliases unfold to gigabytes. Here a document is mappings, lists, strings, true/false,
null, decimal numbers (YAML 1.2's core schema), and every other thing is one clear error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from latentc.errors import RecipeError, ToolMissing

if TYPE_CHECKING:
    import yaml

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20

_NULL = re.compile(r"^(?:~|null|)$")
_BOOL = re.compile(r"^(?:true|false)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$")


def yaml_from_plain(data: Plain) -> str:
    """Write ``data`` so that plain_from_yaml reads the same; keys keep their order."""
    try:
        import yaml
    except ImportError as error:
        raise ToolMissing.package("pyyaml", "compile") from error
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def plain_from_yaml(text: str, where: str) -> Plain:
    """Read one YAML document.

    Args:
        text: at most MAX_BYTES when encoded, at most MAX_DEPTH levels deep.
        where: the file's name, for messages.

    Raises:
        RecipeError: not YAML, a duplicate key, an alias, a tag, too large or too deep.
        ToolMissing: PyYAML is not installed.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ToolMissing.package("pyyaml", "compile") from error
    size_bytes = len(text.encode())
    if size_bytes > MAX_BYTES:
        raise RecipeError(
            where, f"is {size_bytes} bytes long, a recipe has at most {MAX_BYTES}", "is this a recipe?"
        )
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken | yaml.AnchorToken | yaml.TagToken):
                kind = type(token).__name__.removesuffix("Token").lower()
                raise RecipeError(
                    _at(where, token.start_mark),
                    f"uses a YAML {kind}",
                    "write the value out where it is needed",
                )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise RecipeError(
            _at(where, error.problem_mark), f"is not YAML: {error.problem}", "mend the line"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(where, f"is not YAML: {error}", "save it as UTF-8 text") from error
    return None if node is None else _plain(node, where, 0)


def scalar_from_text(text: str) -> Plain:
    """The value that ``text`` has as a plain YAML scalar: null, true, 12, 1e-3 or a string."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text == "true"
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text


def _plain(node: yaml.Node, where: str, depth: int) -> Plain:
    import yaml

    if depth > MAX_DEPTH:
        raise RecipeError(
            _at(where, node.start_mark), f"is nested more than {MAX_DEPTH} levels deep", "flatten it"
        )
    if isinstance(node, yaml.ScalarNode):
        return scalar_from_text(node.value) if node.style is None else str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, where, depth + 1) for item in node.value]
    result: dict[str, Plain] = {}
    for key_node, value_node in node.value:
        key = _plain(key_node, where, depth + 1) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise RecipeError(
                _at(where, key_node.start_mark), "has a key that is not a string", "quote the key"
            )
        if key in result:
            raise RecipeError(
                _at(where, key_node.start_mark), f"has the key '{key}' twice", "keep one of them"
            )
        result[key] = _plain(value_node, where, depth + 1)
    return result


def _at(where: str, mark: yaml.Mark | None) -> str:
    return where if mark is None else f"{where}:{mark.line + 1}:{mark.column + 1}"
