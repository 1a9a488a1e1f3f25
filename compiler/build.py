"""Build: recipe → plan → artifacts → bundles and report in the folder that was asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.compiler.deliver import install_bundle, install_report, require_place
from latentc.compiler.model_place import open_model_of
from latentc.compiler.plan import Plan, plan_recipe
from latentc.compiler.run import Observer, run_plan
from latentc.compiler.store import Store
from latentc.recipes.load import LoadedRecipe

if TYPE_CHECKING:
    from latentc.validation.front_table import FrontTable


@dataclass(frozen=True)
class BuiltTarget:
    """One delivered bundle.

    Args:
        target: its name.
        bundle: where it lies.
        model_bytes: of all weights as stored.
        fp16_bytes: of the same weights in fp16.
        passed: the gate's verdict.
        failures: full names of the metrics that failed.
    """

    target: str
    bundle: Path
    model_bytes: int
    fp16_bytes: int
    passed: bool
    failures: tuple[str, ...]


@dataclass(frozen=True)
class BuildResult:
    """What a build delivered.

    Args:
        targets: a bundle each.
        report: folder of the report.
        steps: how many the plan had.
        seconds: how long it took.
        fronts: what other budgets could have given, where a pass shared one out.
    """

    targets: tuple[BuiltTarget, ...]
    report: Path
    steps: int
    seconds: float
    fronts: tuple[FrontTable, ...] = ()

    @property
    def passed(self) -> bool:
        """Every target's gate passed."""
        return all(target.passed for target in self.targets)


def plan_of(loaded: LoadedRecipe, targets: tuple[str, ...]) -> Plan:
    """The plan of a recipe; ``targets`` replace the recipe's own when there are any."""
    model = open_model_of(loaded)
    return plan_recipe(loaded, model, targets or loaded.recipe.targets)


def build_recipe(
    loaded: LoadedRecipe, targets: tuple[str, ...], out: Path, store: Store, observer: Observer
) -> BuildResult:
    """Build everything ``loaded`` asks for and put it into ``out``.

    Args:
        loaded: the recipe.
        targets: instead of the recipe's own; empty for those.
        out: receives ``<target>/`` for each target, and ``report/``.
        store: where finished work is taken from and kept.
        observer: told how it goes.

    Raises:
        LatentcError: with the exit code of what went wrong; ``out`` holds what it held before.
    """
    began_s = time.monotonic()
    names = targets or loaded.recipe.targets
    plan = plan_of(loaded, names)
    for name in names:
        require_place(out, name)
    artifacts = run_plan(plan, store, observer)
    # heavy only once there is something to read
    from latentc.runtime.bundle import LIMITS, open_bundle
    from latentc.validation.front_table import front_tables
    from latentc.validation.gate import limits_to_json
    from latentc.validation.report_json import read_report
    from latentc.validation.write_report import JSON, write_text

    reports = {name: read_report(artifacts[f"validate/{name}"].path / JSON) for name in names}
    built = []
    for name, report in reports.items():
        bundle = install_bundle(artifacts[f"pack/{name}"].path, out, name)
        write_text(bundle / LIMITS, limits_to_json(loaded.recipe.validation.limits))
        components = open_bundle(bundle).manifest.components.values()
        built.append(
            BuiltTarget(
                name,
                bundle,
                sum(entry.weight_bytes for entry in components),
                sum(entry.fp16_bytes for entry in components),
                report.passed,
                tuple(finding.name for finding in report.failures),
            )
        )
    report_folder = install_report({name: artifacts[f"validate/{name}"].path for name in names}, out)
    return BuildResult(
        tuple(built), report_folder, len(plan.steps), time.monotonic() - began_s, front_tables(reports)
    )
