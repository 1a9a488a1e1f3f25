"""Build facts: what the passes did to each component, as the compiler wrote it, for the report's tables."""

from __future__ import annotations

from pathlib import Path

from latentc.errors import BundleError
from latentc.recipes.family import Component
from latentc.runtime.manifest import Json
from latentc.validation.report import AllotmentRow, BuildFacts, LayerRow, RefusalRow
from latentc.validation.report_json import front_from_json, trial_from_json
from latentc.validation.typed_json import as_list, as_number, as_object, as_text, json_object

PASSES = "passes"

_ALLOCATE = "allocate"
"""The pass whose changes say what each linear gets."""


def facts_of_bundle(reference: Path) -> BuildFacts:
    """The facts in ``reference/passes/<component>.json``; empty where a bundle carries none.

    Raises:
        BundleError: a file is damaged.
    """
    files = [(reference / PASSES / f"{component}.json", str(component)) for component in Component]
    facts = [facts_of_component(path, component) for path, component in files if path.is_file()]
    return BuildFacts(
        tuple(row for one in facts for row in one.layers),
        tuple(row for one in facts for row in one.refusals),
        trials=tuple(row for one in facts for row in one.trials),
        front=tuple(row for one in facts for row in one.front),
        allotments=tuple(row for one in facts for row in one.allotments),
    )


def facts_of_component(path: Path, component: str) -> BuildFacts:
    """What the passes did to ``component``, from the file that they left; raises BundleError on another."""
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
                RefusalRow(component, name, as_text(left["where"]), as_text(left["why"]))
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


def _objects(value: Json) -> list[dict[str, Json]]:
    return [as_object(one) for one in as_list(value)]
