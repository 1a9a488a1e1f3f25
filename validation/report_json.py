"""Report as JSON and back: valid JSON whatever was measured, NaN and infinity as null.

A finding whose value is null was not measured or came to no finite number; it did not pass either way.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

from latentc.errors import BundleError
from latentc.runtime.manifest import Json
from latentc.validation.finding import Finding
from latentc.validation.metric import Direction
from latentc.validation.report import (
    AllotmentRow,
    BuildFacts,
    Execution,
    FrontRow,
    LayerRow,
    PictureRow,
    RefusalRow,
    Report,
    SizeRow,
    StepRow,
    Timing,
    TrialRow,
)
from latentc.validation.typed_json import (
    as_count,
    as_list,
    as_number,
    as_object,
    as_text,
    json_object,
)

FORMAT = 1


def report_to_json(report: Report) -> str:
    """Text of ``report``: ``passed`` and ``findings`` first, then the tables."""
    tables = asdict(report)
    data = {
        "format": FORMAT,
        "passed": report.passed,
        "verdict": report.verdict(),
        **tables,
        "findings": findings_to_json(report),
    }
    return json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def findings_to_json(report: Report) -> list[dict[str, Json]]:
    """The findings of ``report`` with their verdicts, NaN and infinity as null."""
    return [
        {name: _finite(value) for name, value in {**asdict(finding), "passed": finding.passed}.items()}
        for finding in report.findings
    ]


def read_report(path: Path) -> Report:
    """Read what ``report_to_json`` wrote.

    Raises:
        BundleError: the file is no report of this format.
    """
    fix = "validate the bundle again"
    data = json_object(path, fix)
    if data.get("format") != FORMAT:
        raise BundleError(
            str(path), f"has format {data.get('format')}, this latentc reads format {FORMAT}", fix
        )
    try:
        return _report(data)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(str(path), f"is incomplete or mistyped: {error}", fix) from error


def build_facts_to_json(facts: BuildFacts) -> dict[str, Json]:
    """What the compiler keeps beside a bundle, so that a later validation can show it."""
    data = _finite(asdict(facts))
    return as_object(data)


def build_facts_from_json(data: dict[str, Json]) -> BuildFacts:
    """The inverse; raises KeyError or TypeError for anything else."""
    return BuildFacts(
        layers=tuple(
            LayerRow(
                as_text(row["component"]),
                as_text(row["layer"]),
                as_text(row["pass_name"]),
                _number(row["relative_error"]),
            )
            for row in _rows(data["layers"])
        ),
        refusals=tuple(
            RefusalRow(
                as_text(row["component"]),
                as_text(row["pass_name"]),
                as_text(row["where"]),
                as_text(row["why"]),
            )
            for row in _rows(data["refusals"])
        ),
        timings=_timings(data["timings"]),
        trials=tuple(
            trial_from_json(row, as_text(row["component"])) for row in _rows(data.get("trials", []))
        ),
        front=tuple(front_from_json(row, as_text(row["component"])) for row in _rows(data.get("front", []))),
        allotments=tuple(
            AllotmentRow(as_text(row["component"]), as_text(row["layer"]), as_text(row["allotment"]))
            for row in _rows(data.get("allotments", []))
        ),
    )


def trial_from_json(row: dict[str, Json], component: str) -> TrialRow:
    """A trial as passes and reports write it; raises KeyError or TypeError for anything else."""
    return TrialRow(
        component,
        as_text(row["layer"]),
        as_text(row["pass_name"]),
        as_text(row["way"]),
        _number(row["relative_error"]),
        row["taken"] is True,
    )


def front_from_json(row: dict[str, Json], component: str) -> FrontRow:
    """A point of the front as passes and reports write it; raises KeyError or TypeError for anything else."""
    return FrontRow(
        component,
        _number(row["ratio"]),
        _number(row["relative_error"]),
        as_count(row["int4_layers"]),
        as_count(row["int8_layers"]),
        as_count(row["float_layers"]),
        row["taken"] is True,
        as_text(row.get("device", "")),  # what was written before there were budgets of time has none
    )


def _report(data: dict[str, Json]) -> Report:
    execution = as_object(data["execution"])
    return Report(
        recipe=as_text(data["recipe"]),
        target=as_text(data["target"]),
        family=as_text(data["family"]),
        execution=Execution(
            _texts(execution["executes"]), _texts(execution["simulated"]), as_text(execution["stand_in"])
        ),
        findings=tuple(_finding(row) for row in _rows(data["findings"])),
        pictures=tuple(_picture(row) for row in _rows(data["pictures"])),
        steps=tuple(
            StepRow(
                as_count(row["step"]),
                _number(row["relative_error"]),
                _number(row["worst_relative_error"]),
                _number(row["cosine"]),
            )
            for row in _rows(data["steps"])
        ),
        sizes=tuple(
            SizeRow(
                as_text(row["component"]),
                as_count(row["fp16_bytes"]),
                as_count(row["bundle_bytes"]),
                as_count(row["quantized_fp16_bytes"]),
                as_count(row["quantized_bytes"]),
            )
            for row in _rows(data["sizes"])
        ),
        bundle_bytes=as_count(data["bundle_bytes"]),
        build=build_facts_from_json(as_object(data["build"])),
        timings=_timings(data["timings"]),
        notes=_texts(data["notes"]),
        sampling={name: as_number(value) for name, value in as_object(data["sampling"]).items()},
        scheduler=as_text(data["scheduler"]),
        environment=_named_texts(data["environment"]),
        provenance=_named_texts(data["provenance"]),
        resolved_recipe=as_object(data["resolved_recipe"]),
    )


def _finding(row: dict[str, Json]) -> Finding:
    interval = row["interval"]
    low_high = None if interval is None else [as_number(edge) for edge in as_list(interval)]
    return Finding(
        component=as_text(row["component"]),
        metric=as_text(row["metric"]),
        value=_optional_number(row["value"]),
        limit=_optional_number(row["limit"]),
        unit=as_text(row["unit"]),
        direction=Direction(as_text(row["direction"])),
        note=as_text(row["note"]),
        interval=None if low_high is None else (low_high[0], low_high[1]),
    )


def _picture(row: dict[str, Json]) -> PictureRow:
    return PictureRow(
        index=as_count(row["index"]),
        prompt=as_text(row["prompt"]),
        original=as_text(row["original"]),
        result=as_text(row["result"]),
        psnr_db=_number(row["psnr_db"]),
        ssim=_optional_number(row["ssim"]),
        feature_distance=_optional_number(row["feature_distance"]),
        clip_score=_optional_number(row["clip_score"]),
        original_wrong=_optional_texts(row["original_wrong"]),
        result_wrong=_optional_texts(row["result_wrong"]),
    )


def _finite(value: object) -> Json:
    """``value`` as JSON, with null for every number that JSON cannot write."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, Direction):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{type(value).__name__} has no form in a report")


def _rows(value: Json) -> list[dict[str, Json]]:
    return [as_object(row) for row in as_list(value)]


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(as_text(item) for item in as_list(value))


def _named_texts(value: Json) -> dict[str, str]:
    return {name: as_text(item) for name, item in as_object(value).items()}


def _timings(value: Json) -> tuple[Timing, ...]:
    return tuple(
        Timing(as_text(row["name"]), _number(row["seconds"]), as_count(row["times"])) for row in _rows(value)
    )


def _number(value: Json) -> float:
    return math.nan if value is None else as_number(value)


def _optional_number(value: Json) -> float | None:
    return None if value is None else as_number(value)


def _optional_texts(value: Json) -> tuple[str, ...] | None:
    return None if value is None else _texts(value)
