"""Build: recipe → plan → artifacts → bundles and report in the folder that was asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.compiler.budget import Budget
from latentc.compiler.deliver import install_bundle, install_report, require_place
from latentc.compiler.known_files import KnownFiles
from latentc.compiler.model_folder import open_model
from latentc.compiler.model_place import model_place, open_model_of
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
        passed: the gate's verdict; None when nothing was drawn that it could judge.
        failures: full names of the metrics that failed.
    """

    target: str
    bundle: Path
    model_bytes: int
    fp16_bytes: int
    passed: bool | None
    failures: tuple[str, ...]


@dataclass(frozen=True)
class BuildResult:
    """What a build delivered.

    Args:
        targets: a bundle each.
        report: folder of the report; None when nothing was validated.
        steps: how many the plan had.
        seconds: how long it took.
        fronts: what other budgets could have given, where a pass shared one out.
    """

    targets: tuple[BuiltTarget, ...]
    report: Path | None
    steps: int
    seconds: float
    fronts: tuple[FrontTable, ...] = ()

    @property
    def passed(self) -> bool:
        """No target's gate failed."""
        return all(target.passed is not False for target in self.targets)


def plan_of(
    loaded: LoadedRecipe, targets: tuple[str, ...], store: Store | None = None, budget: Budget | None = None
) -> Plan:
    """The plan of a recipe.

    Args:
        loaded: the recipe.
        targets: instead of the recipe's own; empty for those.
        store: knows which files of weights were read before.
        budget: of the machine; None takes the default.
    """
    known = KnownFiles(None if store is None else store.known_files)
    model = open_model_of(loaded, known=known)
    return plan_recipe(loaded, model, targets or loaded.recipe.targets, budget)


def require_room_for(
    loaded: LoadedRecipe, targets: tuple[str, ...], plan: Plan, out: Path, store: Store
) -> None:
    """Refuse to begin what cannot end well; costs nothing when every step is in the store.

    Raises:
        TargetError: a target has less memory than its bundle needs.
        ResourceError: this machine has less memory or disk than the build needs.
    """
    labels = [step.label for step in plan.steps if not store.contains(step.digest)]
    if not labels:
        return
    from latentc.compiler.forecast.prediction import predict
    from latentc.compiler.room import require_room

    model = open_model(model_place(loaded).folder, read_weights=False)
    prediction = predict(loaded, model, targets, labels, store, measured=False)
    require_room(prediction, labels, targets, (store.root, out))


def build_recipe(
    loaded: LoadedRecipe,
    targets: tuple[str, ...],
    out: Path,
    store: Store,
    observer: Observer,
    budget: Budget | None = None,
    *,
    force: bool = False,
) -> BuildResult:
    """Build everything ``loaded`` asks for and put it into ``out``.

    Args:
        loaded: the recipe.
        targets: instead of the recipe's own; empty for those.
        out: receives ``<target>/`` for each target, and ``report/``.
        store: where finished work is taken from and kept.
        observer: told how it goes.
        budget: of the machine; None takes the default.
        force: begin although it is foretold not to fit this machine or a target.

    Raises:
        LatentcError: with the exit code of what went wrong; ``out`` holds what it held before.
    """
    began_s = time.monotonic()
    names = targets or loaded.recipe.targets
    plan = plan_of(loaded, names, store, budget)
    for name in names:
        require_place(out, name)
    if not force:
        require_room_for(loaded, names, plan, out, store)
    artifacts = run_plan(plan, store, observer)
    # heavy only once there is something to read
    from latentc.runtime.bundle import LIMITS, open_bundle
    from latentc.validation.front_table import front_tables
    from latentc.validation.gate import limits_to_json
    from latentc.validation.report_json import read_report
    from latentc.validation.write_report import JSON, write_text

    validated = {
        name: artifacts[f"validate/{name}"].path for name in names if f"validate/{name}" in artifacts
    }
    reports = {name: read_report(path / JSON) for name, path in validated.items()}
    built = []
    for name in names:
        report = reports.get(name)
        bundle = install_bundle(artifacts[f"pack/{name}"].path, out, name)
        write_text(bundle / LIMITS, limits_to_json(loaded.recipe.validation.limits))
        components = open_bundle(bundle).manifest.components.values()
        built.append(
            BuiltTarget(
                name,
                bundle,
                sum(entry.weight_bytes for entry in components),
                sum(entry.fp16_bytes for entry in components),
                None if report is None else report.passed,
                () if report is None else tuple(finding.name for finding in report.failures),
            )
        )
    report_folder = install_report(validated, out) if validated else None
    return BuildResult(
        tuple(built), report_folder, len(plan.steps), time.monotonic() - began_s, front_tables(reports)
    )
