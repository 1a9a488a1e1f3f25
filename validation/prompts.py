"""Prompt sets: a text file with one prompt a line, or ``demo:shapes``, the demo's held-out captions."""

from __future__ import annotations

from pathlib import Path

from latentc.errors import RecipeError
from latentc.recipes.shapes.caption import caption
from latentc.recipes.shapes.scene import scenes_held_out

DEMO = "demo:shapes"


def read_prompts(source: str, count: int, root: Path) -> tuple[str, ...]:
    """The first ``count`` prompts of a set; the same ones on every machine.

    Args:
        source: ``demo:shapes``, or a UTF-8 text file relative to ``root``. Lines are stripped; empty lines
            and those that begin with ``#`` are skipped.
        count: how many, at least 1.
        root: folder of the recipe.

    Raises:
        RecipeError: no such file or set, not UTF-8, no prompts, fewer than ``count``, or one twice.
    """
    prompts = _demo(count) if source == DEMO else _from_file(source, root)
    if len(prompts) < count:
        raise RecipeError(
            source, f"has {len(prompts)} prompts, count asks for {count}", f"set count to {len(prompts)}"
        )
    return prompts[:count]


def _demo(count: int) -> tuple[str, ...]:
    # scene i is said in its i-th paraphrase, so that the plain form and the others are all there
    return tuple(caption(scene, seed=index) for index, scene in enumerate(scenes_held_out()[:count]))


def _from_file(source: str, root: Path) -> tuple[str, ...]:
    if source.startswith("demo:"):
        raise RecipeError(source, "there is no such demo prompt set", f"did you mean '{DEMO}'?")
    path = root / source
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise RecipeError(str(path), "there is no such prompt file", f"or write '{DEMO}'") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            str(path), f"cannot be read as UTF-8 text: {error}", "one prompt a line, saved as UTF-8"
        ) from error
    numbered: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        prompt = line.strip()
        if not prompt or prompt.startswith("#"):
            continue
        if prompt in numbered:
            raise RecipeError(
                f"{path}:{number}",
                f"'{prompt}' is there already in line {numbered[prompt]}",
                "remove one of them: a prompt that counts twice hides the others",
            )
        numbered[prompt] = number
    if not numbered:
        raise RecipeError(str(path), "holds no prompts", "one prompt a line")
    return tuple(numbered)
