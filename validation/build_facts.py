"""Build facts: what the passes did to each component, as the compiler wrote it, for the report's tables."""

from __future__ import annotations

from pathlib import Path

from latentc.errors import BundleError
from latentc.recipes.family import ComponentSpec, Family
from latentc.runtime.manifest import Json
from latentc.validation.report import AllotmentRow, BuildFacts, LayerRow, RefusalRow
from latentc.validation.report_json import front_from_json, trial_from_json
from latentc.validation.typed_json import as_list, as_number, as_object, as_text, json_object

PASSES = "passes"

SKIPPED = "matches skip"
"""What passes say of a weight that a recipe, or the family, names."""

_ALLOCATE = "allocate"
"""The pass whose changes say what each linear gets."""


def facts_of_bundle(reference: Path, family: Family) -> BuildFacts:
    """The facts in ``reference/passes/<component>.json``; empty where a bundle of ``family`` carries none.

    Raises:
        BundleError: a file is damaged.
    """
    files = [(reference / PASSES / f"{spec.component}.json", spec) for spec in family.components]
    facts = [facts_of_component(path, spec) for path, spec in files if path.is_file()]
    return BuildFacts(
        tuple(row for one in facts for row in one.layers),
        tuple(row for one in facts for row in one.refusals),
        trials=tuple(row for one in facts for row in one.trials),
        front=tuple(row for one in facts for row in one.front),
        allotments=tuple(row for one in facts for row in one.allotments),
    )


def facts_of_component(path: Path, spec: ComponentSpec) -> BuildFacts:
    """What the passes did to a component, from the file that they left; raises BundleError on another."""
    component = str(spec.component)
    fix = "build the bundle again"
    data = json_object(path, fix)
    try:
        ran = [(as_text(one["text"]).partition("{")[0], one) for one in _objects(data["passes"])]
        return BuildFacts(
            tuple(
                LayerRow(
                    component,
                    as_text(entry["layer"]),
                    as_text(entry["pass_name"]),
                    as_number(entry["relative_error"]),
                )
                for entry in _objects(data["losses"])
            ),
            tuple(
                RefusalRow(component, name, as_text(left["where"]), _why(left, spec))
                for name, one in ran
                for left in _objects(one["refusals"])
            ),
            trials=tuple(trial_from_json(row, component) for row in _objects(data.get("trials", []))),
            front=tuple(front_from_json(row, component) for row in _objects(data.get("front", []))),
            allotments=tuple(
                AllotmentRow(component, as_text(change["where"]), as_text(change["what"]))
                for name, one in ran
                if name == _ALLOCATE
                for change in _objects(one["changes"])
            ),
        )
    except (KeyError, TypeError) as error:
        raise BundleError(str(path), f"is incomplete or mistyped: {error}", fix) from error


def _why(left: dict[str, Json], spec: ComponentSpec) -> str:
    """The pass's reason, with the family's own where it is the one that skips."""
    why = as_text(left["why"])
    reason = spec.why_left_alone(as_text(left["where"])) if why == SKIPPED else ""
    return f"{why}: {reason}" if reason else why


def _objects(value: Json) -> list[dict[str, Json]]:
    return [as_object(one) for one in as_list(value)]
