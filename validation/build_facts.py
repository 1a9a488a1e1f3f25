"""Build facts: what the passes did to each component, as the compiler wrote it, for the report's tables."""

from __future__ import annotations

from pathlib import Path

from latentc.errors import BundleError
from latentc.recipes.family import Component
from latentc.validation.report import AllotmentRow, BuildFacts, FrontRow, LayerRow, RefusalRow, TrialRow
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
    layers: list[LayerRow] = []
    refusals: list[RefusalRow] = []
    trials: list[TrialRow] = []
    front: list[FrontRow] = []
    allotments: list[AllotmentRow] = []
    for component in Component:
        path = reference / PASSES / f"{component}.json"
        if not path.is_file():
            continue
        fix = "build the bundle again"
        data = json_object(path, fix)
        try:
            for entry in map(as_object, as_list(data["losses"])):
                error = as_number(entry["relative_error"])
                layers.append(
                    LayerRow(str(component), as_text(entry["layer"]), as_text(entry["pass_name"]), error)
                )
            trials += [
                trial_from_json(row, str(component))
                for row in map(as_object, as_list(data.get("trials", [])))
            ]
            front += [
                front_from_json(row, str(component)) for row in map(as_object, as_list(data.get("front", [])))
            ]
            for ran in map(as_object, as_list(data["passes"])):
                name = as_text(ran["text"]).partition("{")[0]
                for left in map(as_object, as_list(ran["refusals"])):
                    refusals.append(
                        RefusalRow(str(component), name, as_text(left["where"]), as_text(left["why"]))
                    )
                if name == _ALLOCATE:
                    allotments += [
                        AllotmentRow(str(component), as_text(change["where"]), as_text(change["what"]))
                        for change in map(as_object, as_list(ran["changes"]))
                    ]
        except (KeyError, TypeError) as error:
            raise BundleError(str(path), f"is incomplete or mistyped: {error}", fix) from error
    return BuildFacts(
        tuple(layers),
        tuple(refusals),
        trials=tuple(trials),
        front=tuple(front),
        allotments=tuple(allotments),
    )
