"""Baseline: committed metric values that a change may not fall behind. One file may hold many bundles.

    {"format": 1, "bundles": {"shapes-sd/ort-mobile": {"unet.sqnr_db": 21.35, …}}}

How far a metric may fall behind, and why, is written beside it in latentc.validation.metric.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from latentc.errors import UsageError
from latentc.runtime.manifest import Json
from latentc.validation.finding import Finding, with_unit
from latentc.validation.limits import Limits
from latentc.validation.metric import Direction, Metric
from latentc.validation.report import Report

FORMAT = 1

Values: TypeAlias = "dict[str, float]"
"""Full metric name to value."""

_CHANGE = "_change"
_DIGITS = 9


@dataclass(frozen=True)
class Baseline:
    """Values by bundle, which is ``<recipe>/<target>``."""

    bundles: dict[str, Values]


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file.

    Raises:
        UsageError: it is missing, no JSON, of another format, or holds something but finite numbers.
    """
    fix = f"write one with --update-baseline {path}"
    try:
        data: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(str(path), "there is no such baseline", fix) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(str(path), f"cannot be read as a baseline: {error}", fix) from error
    entries = data.get("bundles") if isinstance(data, dict) and data.get("format") == FORMAT else None
    if not isinstance(entries, dict):
        raise UsageError(str(path), f"is not a baseline of format {FORMAT}", fix)
    bundles: dict[str, Values] = {}
    for bundle, values in entries.items():
        if not isinstance(values, dict):
            raise UsageError(f"{path}: {bundle}", "is not a table of metric values", fix)
        bundles[bundle] = {}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UsageError(f"{path}: {bundle}: {name}", f"is {value!r}, expected a finite number", fix)
            bundles[bundle][name] = float(value)
    return Baseline(bundles)


def with_baseline(report: Report, baseline: Baseline, limits: Limits, where: str) -> Report:
    """``report`` with one more finding for every metric that the baseline knows.

    A change finding's value is new less old, both at most the metric's ceiling. It fails when the metric
    fell behind by more than its slack, or was measured once and no longer is. What became better by more
    than its slack is said in a note.

    Raises:
        UsageError: the baseline has no entry for this bundle.
    """
    key = _bundle_key(report)
    if key not in baseline.bundles:
        known = ", ".join(sorted(baseline.bundles)) or "none"
        raise UsageError(
            where, f"has no entry for '{key}', only: {known}", f"add it with --update-baseline {where}"
        )
    measured = {finding.name: finding for finding in report.findings}
    metrics = {".".join(name): metric for name, metric in limits.metrics.items()}
    changes: list[Finding] = []
    notes: list[str] = []
    for name, old in baseline.bundles[key].items():
        if name not in metrics:
            notes.append(f"The baseline's {name} is no metric of this version; update the baseline.")
            continue
        finding = _change(name, old, measured.get(name), metrics[name])
        changes.append(finding)
        if _improved(finding):
            notes.append(
                f"{name} became better than its baseline {with_unit(old, finding.unit)}; "
                "update the baseline to hold on to it."
            )
    unknown = sorted(set(_values(report)) - set(baseline.bundles[key]))
    if unknown:
        notes.append(f"Not in the baseline yet: {', '.join(unknown)}.")
    return replace(report, findings=report.findings + tuple(changes), notes=report.notes + tuple(notes))


def updated(baseline: Baseline, report: Report) -> Baseline:
    """``baseline`` with the values of ``report`` in place of its bundle's old ones.

    Raises:
        UsageError: the report has a value that is no finite number: a broken bundle is nobody's baseline.
    """
    for finding in report.findings:
        if finding.value is not None and not math.isfinite(finding.value):
            raise UsageError(
                finding.name, f"is {finding.value}, which no baseline can hold", "repair the bundle first"
            )
    return Baseline({**baseline.bundles, _bundle_key(report): _values(report)})


def baseline_to_json(baseline: Baseline) -> str:
    """Text to commit: sorted, nine significant digits, so that a diff shows what changed and no more."""
    bundles = {
        bundle: {name: float(f"{value:.{_DIGITS}g}") for name, value in sorted(values.items())}
        for bundle, values in sorted(baseline.bundles.items())
    }
    return json.dumps({"format": FORMAT, "bundles": bundles}, indent=2, allow_nan=False) + "\n"


def _change(name: str, old: float, now: Finding | None, metric: Metric) -> Finding:
    component, _, short = name.rpartition(".")
    slack = max(metric.slack, abs(old) * metric.slack_share)
    rises = metric.direction is Direction.AT_LEAST
    ceiling = math.inf if metric.ceiling is None else metric.ceiling
    measured = now is not None and now.value is not None
    note = (
        f"baseline {with_unit(old, metric.unit)}"
        if measured
        else f"baseline {with_unit(old, metric.unit)}, no longer measured"
    )
    return Finding(
        component=component,
        metric=short + _CHANGE,
        value=min(now.value, ceiling) - min(old, ceiling)
        if now is not None and now.value is not None
        else None,
        limit=-slack if rises else slack,
        unit=metric.unit,
        direction=metric.direction,
        note=note,
    )


def _improved(change: Finding) -> bool:
    if change.value is None or change.limit is None:
        return False
    return change.value > -change.limit if change.limit < 0 else change.value < -change.limit


def _values(report: Report) -> Values:
    return {
        finding.name: finding.value
        for finding in report.findings
        if finding.value is not None and not finding.metric.endswith(_CHANGE)
    }


def _bundle_key(report: Report) -> str:
    return f"{report.recipe}/{report.target}"
