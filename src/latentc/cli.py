"""The command line: what each command takes and shows. Heavy imports live inside the commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentc import __version__
from latentc.border import guarded
from latentc.errors import GateFailed, UsageError
from latentc.listings import JsonOption, listings

if TYPE_CHECKING:
    from latentc.compiler.build import BuiltTarget

app = typer.Typer(
    name="latentc",
    help="Compile text-to-image diffusion pipelines into verified 4-bit bundles for small devices.",
    epilog="Try: latentc build shapes-sd --out out",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
engine_app = typer.Typer(
    help="Engines, on the board that will run them.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(engine_app, name="engine")

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or a shipped recipe's name.")
]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe: --set sampling.steps=8."),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", help="Build for this target instead of the recipe's; repeatable."),
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Where finished work is kept.", show_default="~/.cache/latentc")
]
StepsOption = Annotated[int | None, typer.Option(min=1, max=1000, help="Denoiser steps.")]


@app.command(epilog="Try: latentc build shapes-sd --out out --target ort-mobile")
@guarded
def build(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives one bundle a target, and report/.")],
    target: TargetOption = None,
    set_: SetOption = None,
    store: StoreOption = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that the build may take at most: 3GiB, 800MiB.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Begin although it is foretold not to fit.")] = False,
) -> None:
    """Compile a recipe into verified bundles.

    What will not fit into a target's memory, or this machine's memory and disk, is refused before it begins.
    One bundle a target in DIR/<target>, the report in DIR/report; exit code 1 when a limit is broken.
    With --memory, layers wait for one another; a size below what the largest one needs is refused.
    Where the pass allocate shared out a budget, a table says what other budgets would have given.
    """
    from latentc.compiler.budget import Budget, memory_bytes_from_text
    from latentc.compiler.build import build_recipe
    from latentc.compiler.store import Store
    from latentc.recipes.load import load_recipe, recipe_file
    from latentc.terminal import ProgressLines, duration_text, say, say_table, size_text

    loaded = load_recipe(recipe_file(recipe), set_ or [])
    progress = ProgressLines()
    budget = None if memory is None else Budget(memory_bytes=memory_bytes_from_text(memory))
    result = build_recipe(
        loaded, tuple(target or ()), out, Store(_store(store)), progress, budget, force=force
    )
    for front in result.fronts:
        say(front.title)
        say_table(front.head, front.rows)
        say()
    say_table(
        ["target", "bundle", "size", "of fp16", "verdict"],
        [
            [
                one.target,
                str(one.bundle),
                size_text(one.model_bytes),
                f"{one.model_bytes / one.fp16_bytes:.2f}",
                _verdict(one),
            ]
            for one in result.targets
        ],
    )
    took = f"({progress.cached} of {result.steps} steps from the store, {duration_text(result.seconds)})"
    if result.report is None:
        say(f"nothing was compared with the original: validation.count is 0   {took}")
        return
    say(f"report: {result.report / 'report.html'}   {took}")
    if not result.passed:
        raise GateFailed(
            "", "the result is outside the recipe's limits", f"open {result.report / 'report.html'}"
        )


@app.command(epilog="Try: latentc freeze shapes-flux --out frozen.yaml")
@guarded
def freeze(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Receives the recipe with its allocation.")],
    evaluations: Annotated[
        int, typer.Option(min=0, max=20, help="Builds to judge at most, with ever larger budgets; 0: none.")
    ] = 0,
    target: TargetOption = None,
    set_: SetOption = None,
    store: StoreOption = None,
) -> None:
    """Write what allocate found into a recipe, so that its builds measure nothing again.

    With --evaluations, the budget is raised until the recipe's limits hold.
    """
    from latentc.compiler.freeze import freeze as freeze_recipe
    from latentc.compiler.freeze import write_frozen
    from latentc.compiler.store import Store
    from latentc.recipes.load import load_recipe, recipe_file
    from latentc.terminal import ProgressLines, say, say_table

    if not out.parent.is_dir():  # said now, not after an hour
        raise UsageError(f"--out {out}", f"there is no folder '{out.parent}'", "make it first")
    loaded = load_recipe(recipe_file(recipe), set_ or [])
    frozen = freeze_recipe(loaded, tuple(target or ()), evaluations, Store(_store(store)), ProgressLines())
    if frozen.evaluations:
        say_table(
            ["budget", "verdict"],
            [
                [f"{one.max_ratio:.4f}", "passed" if one.passed else f"FAILED: {one.shortfalls[0]}"]
                for one in frozen.evaluations
            ],
        )
    write_frozen(frozen, out)
    say(str(out))


@app.command(epilog="Try: latentc plan shapes-sd")
@guarded
def plan(
    recipe: RecipeArgument,
    target: TargetOption = None,
    set_: SetOption = None,
    store: StoreOption = None,
    probe: Annotated[bool, typer.Option("--probe", help="Measure this machine again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a build would run, and what it and its bundles would take.

    Time is of this machine, which is measured for ten seconds once. Nothing is built.
    """
    from latentc.compiler.forecast.prediction import predict
    from latentc.compiler.plan_states import plan_states
    from latentc.compiler.store import Store
    from latentc.plan_view import plan_to_json, say_plan
    from latentc.recipes.load import load_recipe, recipe_file
    from latentc.terminal import say_json

    loaded = load_recipe(recipe_file(recipe), set_ or [])
    place = Store(_store(store))
    found = plan_states(loaded, tuple(target or ()), place)
    labels = [state.step.label for state in found.states]
    prediction = predict(loaded, found.model, found.targets, labels, place, probe_again=probe)
    if as_json:
        say_json(plan_to_json(found, prediction))
    else:
        say_plan(found, prediction)


@app.command(epilog="Try: latentc validate out/ort-mobile --report out/again")
@guarded
def validate(
    bundle: BundleArgument,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Receives report.json, report.html, junit.xml.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fail when a metric is worse than in this file.")
    ] = None,
    update_baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write this run's metrics as the new baseline.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one a core.")] = 0,
) -> None:
    """Compare a bundle with the fp16 original.

    The gate of a CI: exit code 1 when a limit is broken or a metric is worse than the baseline.
    """
    from latentc.terminal import say
    from latentc.validation.gate import validate_bundle

    folder = report if report is not None else bundle.parent / "report"
    result = validate_bundle(
        bundle, folder, baseline=baseline, update_baseline=update_baseline, threads=threads
    )
    for finding in result.findings:
        if not finding.passed:
            say(f"FAILED {finding}")
    say(f"report: {folder / 'report.html'}")
    if not result.passed:
        raise GateFailed(str(bundle), "the result is outside its limits", f"open {folder / 'report.html'}")


@app.command(
    epilog='Try: latentc run out/ort-mobile --prompt "a large red circle on a white background" --out red.png'
)
@guarded
def run(
    bundle: BundleArgument,
    prompt: Annotated[str, typer.Option(help="What the picture shows.")],
    out: Annotated[Path, typer.Option(metavar="IMAGE.png", help="Where the picture goes.")],
    negative_prompt: Annotated[str, typer.Option(help="What it does not show.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Where the noise comes from.")] = 0,
    steps: StepsOption = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Classifier-free guidance scale.")] = None,
    height: Annotated[int | None, typer.Option(min=8, help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(min=8, help="Pixels.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one a core.")] = 0,
) -> None:
    """Make a picture from a bundle; needs no torch."""
    from latentc.runtime.generate import generate
    from latentc.runtime.picture import save_png
    from latentc.terminal import say

    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}", "is not a .png file", "give it the ending .png")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}", f"there is no folder '{out.parent}'", "make it first")
    picture = generate(
        bundle,
        prompt,
        negative_prompt=negative_prompt,
        seed=seed,
        steps=steps,
        guidance=guidance,
        height=height,
        width=width,
        threads=threads,
        tell=lambda line: say(f"note: {line}", sys.stderr),
    )
    save_png(picture, out)
    say(str(out))


@engine_app.command("build", epilog="Try: latentc engine build jetson-orin-nano-8gb")
@guarded
def engine_build(bundle: BundleArgument) -> None:
    """Build the engines of a bundle, then run its self-test."""
    from latentc.runtime.engine import build_engines
    from latentc.terminal import say

    for line in build_engines(bundle):
        say(line)


@app.command(epilog="Try: latentc bench out/ort-mobile")
@guarded
def bench(
    bundle: BundleArgument,
    runs: Annotated[int, typer.Option(min=1, help="Counted runs of each component.")] = 10,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one a core.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Time each component of a bundle on this machine."""
    from dataclasses import asdict

    from latentc.runtime.measure import measure_bundle
    from latentc.terminal import say_json, say_table

    rows = measure_bundle(bundle, runs=runs, threads=threads)
    if as_json:
        say_json([asdict(row) for row in rows])
        return
    say_table(
        ["component", "load ms", "run ms (median)", "peak MiB"],
        [
            [row.component, f"{row.load_ms:.1f}", f"{row.latency_ms:.2f}", f"{row.memory_mib:.0f}"]
            for row in rows
        ],
    )


@app.command(epilog="Try: latentc inspect out/ort-mobile")
@guarded
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A bundle, or an ONNX file.")],
    as_json: JsonOption = False,
) -> None:
    """Show what is inside a bundle or a graph."""
    from latentc.compiler.inspection import inspect_path
    from latentc.terminal import say, say_json, say_table

    facts = inspect_path(path)
    if as_json:
        say_json(facts.to_json())
        return
    for line in facts.head:
        say(line)
    say_table(facts.columns, facts.rows)


@app.command(epilog="Try: latentc verify out/ort-mobile")
@guarded
def verify(bundle: BundleArgument) -> None:
    """Check every byte of a bundle."""
    from latentc.runtime.bundle import verify_bundle
    from latentc.terminal import say, size_text

    manifest = verify_bundle(bundle).manifest
    total = sum(entry.size_bytes for entry in manifest.files.values())
    say(f"{bundle}: sound, {len(manifest.files)} files, {size_text(total)}")


@app.command(epilog="Try: latentc doctor")
@guarded
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can do, and what is missing."""
    from latentc.compiler.doctor import examine
    from latentc.terminal import say_json, say_table

    checks = examine()
    if as_json:
        say_json([{"what": c.what, "found": c.found, "fix": c.fix} for c in checks])
        return
    say_table(["what", "found", "fix"], [[c.what, c.found, c.fix] for c in checks])


app.add_typer(listings)


def _version(wanted: bool) -> None:
    if wanted:
        from latentc.terminal import say

        say(f"latentc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Compile text-to-image diffusion pipelines into verified 4-bit bundles for small devices."""


def _verdict(one: BuiltTarget) -> str:
    if one.passed is None:
        return "not validated"
    return "passed" if one.passed else f"FAILED: {', '.join(one.failures[:3])}"


def _store(chosen: Path | None) -> Path:
    if chosen is not None:
        return chosen
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "latentc"


def main() -> None:
    """Entry point of the ``latentc`` command."""
    app()
