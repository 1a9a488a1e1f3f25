"""Load a recipe: file → extended → overridden → Recipe, naming the key at fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args, get_origin

from latentc.errors import RecipeError, ToolMissing, UsageError, nearest
from latentc.recipes.strict_yaml import Plain, plain_from_yaml

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from latentc.recipes.recipe import Recipe

SHIPPED = Path(__file__).parent
DEMO_WEIGHTS = SHIPPED / "shapes" / "weights"
MAX_EXTENDS = 8


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and the file it came from, which relative paths in it are relative to."""

    recipe: Recipe
    file: Path

    def path_of(self, text: str) -> Path:
        """The path that ``text`` means in this recipe: ``demo:NAME``, absolute, or beside the file."""
        return path_of(text, self.file.parent)

    def to_json(self) -> dict[str, Plain]:
        """The resolved recipe as plain data, defaults written out."""
        data: dict[str, Plain] = json.loads(self.recipe.model_dump_json())
        return data


def path_of(text: str, beside: Path) -> Path:
    """The path that ``text`` means: ``demo:NAME`` is shipped, anything else is relative to ``beside``.

    Raises:
        RecipeError: there is no shipped model of that name.
    """
    if not text.startswith("demo:"):
        return (beside / Path(text).expanduser()).resolve()
    name = text.removeprefix("demo:")
    shipped = (
        sorted(folder.name for folder in DEMO_WEIGHTS.iterdir() if folder.is_dir())
        if DEMO_WEIGHTS.is_dir()
        else []
    )
    if name not in shipped:
        raise RecipeError(text, f"there is no shipped model '{name}'", nearest(name, shipped))
    return DEMO_WEIGHTS / name


def recipe_file(name: str) -> Path:
    """The file that ``name`` means on the command line: a path, or a shipped recipe by name.

    Raises:
        RecipeError: neither exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in SHIPPED.glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise RecipeError(name, "is a folder, a recipe is a YAML file", "name the .yaml file in it")
    if path.suffix in (".yaml", ".yml"):
        raise RecipeError(name, "there is no such file", nearest(path.stem, shipped))
    raise RecipeError(name, "is neither a file nor a shipped recipe", nearest(name, shipped))


def load_recipe(file: Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read ``file``, what it extends, and apply ``overrides``.

    Args:
        file: a YAML file.
        overrides: ``path.to.key=value`` each; list items by number; the value is read as YAML.

    Raises:
        RecipeError: unreadable, not strict YAML, an unknown key (the nearest is named) or a mistyped one.
        UsageError: an override has no ``=`` or leads nowhere.
        ToolMissing: pydantic or PyYAML is not installed.
    """
    try:
        from pydantic import ValidationError

        from latentc.recipes.recipe import Recipe
    except ModuleNotFoundError as error:
        raise ToolMissing.package(error.name or "pydantic", "compile") from error

    data = _extended(file, ())
    for override in overrides:
        _override(data, override)
    try:
        return LoadedRecipe(Recipe.model_validate(data), file.resolve())
    except ValidationError as error:
        raise _recipe_error(str(file), error, Recipe) from error


def recipe_schema() -> dict[str, Plain]:
    """JSON Schema of a recipe file, for editors."""
    from latentc.recipes.recipe import Recipe

    schema: dict[str, Plain] = Recipe.model_json_schema()
    return schema


def _extended(file: Path, seen: tuple[Path, ...]) -> dict[str, Plain]:
    path = file.resolve()
    if path in seen or len(seen) >= MAX_EXTENDS:
        chain = " → ".join(p.name for p in (*seen, path))
        raise RecipeError(str(file), f"extends in a circle or too deep: {chain}", "remove one 'extends'")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(str(file), "there is no such file", "check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            str(file), f"cannot be read: {error}", "is it a UTF-8 text file you may read?"
        ) from error
    data = plain_from_yaml(text, str(file))
    if not isinstance(data, dict):
        seen_kind = "empty" if data is None else f"a {type(data).__name__}"
        raise RecipeError(
            str(file), f"is {seen_kind}, a recipe is a mapping", "see `latentc recipes` for examples"
        )
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise RecipeError(
            f"{file}: extends", f"is {base!r}, wanted the name of a recipe file", "write one file name"
        )
    return _merged(_extended(file.parent / base, (*seen, path)), data)


def _merged(base: dict[str, Plain], over: dict[str, Plain]) -> dict[str, Plain]:
    """Mappings merge key by key; everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _override(data: dict[str, Plain], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UsageError(f"--set {override}", "has no '='", "write --set path.to.key=value")
    value = plain_from_yaml(text, f"--set {path}")
    here: Plain = data
    *parents, last = path.split(".")
    for done, key in enumerate(parents):
        trail = ".".join(parents[: done + 1])
        if isinstance(here, list):
            here = here[_index(here, key, override)]
        elif isinstance(here, dict):
            below = here.get(key)
            if below is None or (isinstance(below, str) and isinstance(value, dict)):
                below = here[key] = {}
            here = below
        else:
            raise UsageError(
                f"--set {override}", f"'{trail}' leads into a plain value", "set the value above it"
            )
    if isinstance(here, list):
        here[_index(here, last, override)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise UsageError(f"--set {override}", f"'{path}' leads into a plain value", "set the value above it")


def _index(items: list[Plain], key: str, override: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise UsageError(
            f"--set {override}", f"'{key}' is no item of a list of {len(items)}", f"use 0 to {len(items) - 1}"
        )
    return int(key)


def _recipe_error(where: str, error: ValidationError, root: type[BaseModel]) -> RecipeError:
    """The most telling of pydantic's errors, as one of ours: which key, seen against wanted, the way out."""
    # A misspelt key shows up twice, as unknown and as missing; the unknown one names the mistake.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in first["loc"])
    place = f"{where}: {path}" if path else where
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return RecipeError(
            place, f"there is no key '{key}' here", nearest(key, _fields_at(root, first["loc"][:-1]))
        )
    if first["type"] == "missing":
        return RecipeError(place, "is missing", f"add '{first['loc'][-1]}:'")
    seen = json.dumps(first["input"], default=str)
    shown = seen if len(seen) <= 60 else seen[:57] + "…"
    reason = first["msg"].removeprefix("Value error, ")
    return RecipeError(place, f"is {shown}: {reason[0].lower()}{reason[1:]}", "mend the value")


def _fields_at(root: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the keys allowed at ``path`` of the recipe."""
    here: object = root
    for part in path:
        if isinstance(here, type) and hasattr(here, "model_fields") and part in here.model_fields:
            here = here.model_fields[part].annotation
        elif get_origin(here) in (tuple, dict, list):
            here = [kind for kind in get_args(here) if kind is not ...][-1]
    fields = getattr(here, "model_fields", {})
    return list(fields)
