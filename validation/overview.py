"""Overview: the verdict on every target of one recipe: a JSON, a JUnit file and a page that leads on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from latentc.validation.junit import report_to_junit
from latentc.validation.overview_view import drawn_rows, target_view
from latentc.validation.page import render_page
from latentc.validation.report import Report
from latentc.validation.report_json import FORMAT, findings_to_json
from latentc.validation.write_report import HTML, JSON, JUNIT, write_text


def write_overview(reports: Mapping[str, Report], folder: Path) -> None:
    """Write report.json, junit.xml and report.html into ``folder``.

    Args:
        reports: by target; each one's own files lie in ``folder/<target>``.
        folder: exists.

    Raises:
        ToolMissing: jinja2 is not installed.
        UsageError: the folder cannot be written to, or a picture cannot be read.
    """
    write_text(folder / JSON, overview_to_json(reports))
    write_text(folder / JUNIT, _junit(reports))
    write_text(folder / HTML, _html(reports, folder))


def overview_to_json(reports: Mapping[str, Report]) -> str:
    """``passed`` and ``findings`` of all targets, each finding with its target, and where each report is."""
    data = {
        "format": FORMAT,
        "passed": bool(reports) and all(report.passed for report in reports.values()),
        "findings": [
            {"target": target, **finding}
            for target, report in sorted(reports.items())
            for finding in findings_to_json(report)
        ],
        "targets": {
            target: {"passed": report.passed, "verdict": report.verdict(), "report": f"{target}/{HTML}"}
            for target, report in sorted(reports.items())
        },
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _junit(reports: Mapping[str, Report]) -> str:
    root = ElementTree.Element("testsuites", name="latentc")
    for _, report in sorted(reports.items()):
        root.extend(ElementTree.fromstring(report_to_junit(report).split("\n", 1)[1]))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _html(reports: Mapping[str, Report], folder: Path) -> str:
    ordered = {target: report for target, report in sorted(reports.items())}
    kept = sum(report.passed for report in ordered.values())
    return render_page(
        "overview.html",
        recipe=next((report.recipe for report in ordered.values()), ""),
        passed=bool(ordered) and kept == len(ordered),
        verdict=f"{kept} of {len(ordered)} target{'' if len(ordered) == 1 else 's'} passed",
        targets=[target_view(report, f"{target}/{HTML}") for target, report in ordered.items()],
        rows=drawn_rows(ordered, folder),
    )
