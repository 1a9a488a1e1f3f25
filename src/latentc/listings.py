"""Listings: the commands that say what latentc comes with. Heavy imports live inside them, as in cli.py."""

from __future__ import annotations

from typing import Annotated

import typer

from latentc.border import guarded

listings = typer.Typer(rich_markup_mode=None)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@listings.command(epilog="Try: latentc recipes")
@guarded
def recipes(
    as_json: JsonOption = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a recipe instead.")
    ] = False,
) -> None:
    """List the recipes that come with latentc."""
    from latentc.recipes.load import SHIPPED, load_recipe, recipe_schema
    from latentc.terminal import say_json, say_table

    if schema:
        say_json(recipe_schema())
        return
    loaded = [load_recipe(file) for file in sorted(SHIPPED.glob("*.yaml"))]
    rows = [[one.file.stem, one.recipe.model.path, " ".join(one.recipe.targets)] for one in loaded]
    if as_json:
        say_json([dict(zip(("recipe", "model", "targets"), row, strict=True)) for row in rows])
        return
    say_table(["recipe", "model", "targets"], rows)


@listings.command(epilog="Try: latentc targets")
@guarded
def targets(as_json: JsonOption = False) -> None:
    """List the targets and what they execute."""
    from dataclasses import asdict

    from latentc.recipes.target import TARGETS
    from latentc.terminal import say_json, say_table

    if as_json:
        say_json([asdict(target) for target in TARGETS])
        return
    say_table(
        ["target", "memory", "executes (weights × activations)", "note"],
        [[t.name, f"{t.memory_mib} MiB", "; ".join(t.executes), t.note] for t in TARGETS],
    )


@listings.command(epilog="Try: latentc passes")
@guarded
def passes(as_json: JsonOption = False) -> None:
    """List the passes with their options."""
    from latentc.compiler.inspection import describe_passes
    from latentc.terminal import say_json, say_table

    described = describe_passes()
    if as_json:
        say_json(
            [
                {"pass": d.name, "options": d.options, "preserves": d.preserves, "what": d.what}
                for d in described
            ]
        )
        return
    say_table(
        ["pass", "keeps the function", "what", "options"],
        [[d.name, "yes" if d.preserves else "no", d.what, d.options_text] for d in described],
    )
