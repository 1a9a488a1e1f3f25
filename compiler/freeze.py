"""Freeze: what allocate found becomes part of a recipe, so that building it measures nothing again.

With evaluations, the budget is raised until the recipe's limits hold: the front says which budget should make
up for what a metric lacks, a build says whether it does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.compiler.build import plan_of
from latentc.compiler.model_place import open_model_of
from latentc.compiler.recipe_passes import DENOISER
from latentc.compiler.run import Observer, run_plan
from latentc.compiler.stages.transform import PASSES_FILE
from latentc.errors import GateFailed, RecipeError
from latentc.passes.allocate import Allocate
from latentc.passes.pass_text import pass_from_options
from latentc.recipes.family import Component, ComponentSpec
from latentc.recipes.load import LoadedRecipe
from latentc.recipes.strict_yaml import yaml_from_plain
from latentc.validation.build_facts import facts_of_component

if TYPE_CHECKING:
    from latentc.compiler.plan import Plan
    from latentc.compiler.store import Artifact, Store
    from latentc.recipes.recipe import PassSpec
    from latentc.recipes.strict_yaml import Plain
    from latentc.validation.report import FrontRow, Report

_STEP_DB = 1.5
"""What to ask of the next budget when a metric that is no ratio in dB falls short."""


@dataclass(frozen=True)
class Evaluation:
    """One build on the way to a budget that passes.

    Args:
        max_ratio: the budget, over floats.
        passed: the gate's verdict on all targets.
        shortfalls: what fell short, in words.
    """

    max_ratio: float
    passed: bool
    shortfalls: tuple[str, ...]


@dataclass(frozen=True)
class Frozen:
    """A recipe with its allocation written out, and the builds that led to it."""

    recipe: LoadedRecipe
    evaluations: tuple[Evaluation, ...]


def freeze(
    loaded: LoadedRecipe,
    targets: tuple[str, ...],
    evaluations: int,
    store: Store,
    observer: Observer,
) -> Frozen:
    """Find the allocation of ``loaded`` and write it into its passes.

    Args:
        loaded: has an ``allocate`` without a plan among its denoiser's passes.
        targets: to be judged on instead of the recipe's own; empty for those.
        evaluations: how many builds at most may be judged; 0 takes the recipe's budget as it is.
        store: where finished work is taken from and kept.
        observer: told how it goes.

    Raises:
        RecipeError: there is nothing to freeze.
        GateFailed: no budget passed within ``evaluations``.
        LatentcError: what a build raises.
    """
    component, place = _place_of(loaded)
    tried: list[Evaluation] = []
    while True:
        plan = plan_of(loaded, targets)
        spec = _spec_of(loaded, component)
        label = f"transform/{spec.component}"
        artifacts = run_plan(plan if evaluations else _up_to(plan, label), store, observer)
        facts = facts_of_component(artifacts[label].path / PASSES_FILE, spec)
        allocate = _allocate_of(loaded.recipe.passes[component][place])
        ratio = allocate.max_ratio
        if evaluations:
            missing_db, shortfalls = _judged(artifacts)
            tried.append(Evaluation(ratio, not shortfalls, tuple(shortfalls)))
        if not evaluations or tried[-1].passed:
            found: list[Plain] = [f"{row.layer}={row.allotment}" for row in facts.allotments]
            return Frozen(_with(loaded, component, place, {"plan": found}), tuple(tried))
        larger = larger_budget(facts.front, ratio, missing_db, allocate.largest_ratio)
        if larger is None or len(tried) == evaluations:
            short = tried[-1].shortfalls[0]
            more = "allow more --evaluations, or " if larger is not None else ""
            raise GateFailed(
                f"{loaded.file.name}: passes.{component}",
                f"no budget up to {ratio:.3f} of {allocate.whole} keeps the limits ({short})",
                f"{more}loosen the limit, or let allocate choose float too: precisions: [int4, int8, float]",
            )
        loaded = _with(loaded, component, place, {"max_ratio": larger})


def write_frozen(frozen: Frozen, file: Path) -> None:
    """Write the recipe, complete, with paths that are right from ``file``; raises RecipeError."""
    data = frozen.recipe.to_json()
    data["passes"] = {
        name: [{spec.name: dict(spec.options)} if spec.options else spec.name for spec in chain]
        for name, chain in frozen.recipe.recipe.passes.items()
    }
    for keys in (
        ("model", "path"),
        ("calibration", "prompts"),
        ("validation", "prompts"),
        ("validation", "clip"),
    ):
        _rebase(data, keys, frozen.recipe, file)
    model = data["model"]
    for lora in model["loras"] if isinstance(model, dict) and isinstance(model["loras"], list) else ():
        _rebase({"lora": lora}, ("lora", "path"), frozen.recipe, file)
    try:
        file.write_text(yaml_from_plain(data), encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            str(file), f"cannot be written: {error.strerror}", "choose another --out"
        ) from error


def _rebase(data: Mapping[str, Plain], keys: tuple[str, str], recipe: LoadedRecipe, file: Path) -> None:
    entry = data[keys[0]]
    value = entry.get(keys[1]) if isinstance(entry, dict) else None
    if isinstance(entry, dict) and isinstance(value, str) and not value.startswith("demo:"):
        entry[keys[1]] = Path(os.path.relpath(recipe.path_of(value), file.resolve().parent)).as_posix()


def _place_of(loaded: LoadedRecipe) -> tuple[str, int]:
    """The component as the recipe calls it, and where in its passes the allocation to freeze is."""
    for component, chain in loaded.recipe.passes.items():
        for place, spec in enumerate(chain):
            if spec.name == Allocate.name and not spec.options.get("plan"):
                return component, place
    raise RecipeError(
        f"{loaded.file.name}: passes",
        "there is no allocate without a plan",
        "add allocate before split-low-rank",
    )


def _spec_of(loaded: LoadedRecipe, component: str) -> ComponentSpec:
    """What a recipe calls ``component``."""
    family = open_model_of(loaded, read_values=False).family
    return family.spec(family.denoiser if component == DENOISER else Component(component))


def _allocate_of(spec: PassSpec) -> Allocate:
    """The pass that ``spec`` describes."""
    step = pass_from_options(spec.name, spec.options)
    assert isinstance(step, Allocate), spec.name
    return step


def _up_to(plan: Plan, label: str) -> Plan:
    """Only what the step ``label`` needs."""
    from latentc.compiler.plan import Plan

    wanted = {label}
    for step in reversed(plan.steps):
        if step.label in wanted:
            wanted |= {below.label for below in step.inputs.values()}
    return Plan(plan.name, tuple(step for step in plan.steps if step.label in wanted))


def _judged(artifacts: Mapping[str, Artifact]) -> tuple[float, list[str]]:
    """What the worst failed metric lacks, in dB, and every failure in words."""
    from latentc.validation.report_json import read_report
    from latentc.validation.write_report import JSON

    missing_db, said = 0.0, []
    for label, artifact in artifacts.items():
        if label.startswith("validate/"):
            report: Report = read_report(artifact.path / JSON)
            for finding in report.failures:
                said.append(f"{label.removeprefix('validate/')}: {finding.sentence()}")
                known = finding.unit == "dB" and finding.value is not None and finding.limit is not None
                lacks = abs(finding.limit - finding.value) if known else _STEP_DB  # type: ignore[operator] # known
                missing_db = max(missing_db, lacks)
    return missing_db, said


def larger_budget(
    front: Sequence[FrontRow], ratio: float, missing_db: float, largest_ratio: float = 1.0
) -> float | None:
    """The smallest budget on the front that should be better by ``missing_db``; None when there is no larger.

    Past the front's foretold end its largest budget is the last to be tried, ``largest_ratio`` at most.
    """
    taken = next(point for point in front if point.taken)
    wanted = taken.relative_error * 10 ** (-missing_db / 20)
    larger = [point for point in front if point.ratio > ratio and not point.taken]
    if not larger or ratio >= largest_ratio:
        return None
    enough = [point for point in larger if point.relative_error <= wanted]
    chosen = enough[0] if enough else larger[-1]
    return min(largest_ratio, math.ceil(chosen.ratio * 1e5) / 1e5)


def _with(loaded: LoadedRecipe, component: str, place: int, options: Mapping[str, Plain]) -> LoadedRecipe:
    """``loaded`` with ``options`` set on one of its passes."""
    chain = list(loaded.recipe.passes[component])
    spec: PassSpec = chain[place]
    chain[place] = spec.model_copy(update={"options": {**spec.options, **options}})
    passes = {**loaded.recipe.passes, component: tuple(chain)}
    return LoadedRecipe(loaded.recipe.model_copy(update={"passes": passes}), loaded.file)
