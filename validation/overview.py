"""Overview: the verdict on every target of one recipe: a JSON, a JUnit file and a page that leads on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from latentc.errors import ToolMissing
from latentc.validation.junit import report_to_junit
from latentc.validation.report import Report
from latentc.validation.report_json import FORMAT, findings_to_json
from latentc.validation.write_report import HTML, JSON, JUNIT, write_whole


def write_overview(reports: Mapping[str, Report], folder: Path) -> None:
    """Write report.json, junit.xml and report.html into ``folder``.

    Args:
        reports: by target; each one's own files lie in ``folder/<target>``.
        folder: exists.

    Raises:
        ToolMissing: jinja2 is not installed.
        UsageError: the folder cannot be written to.
    """
    write_whole(folder / JSON, overview_to_json(reports))
    write_whole(folder / JUNIT, _junit(reports))
    write_whole(folder / HTML, _html(reports))


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


def _html(reports: Mapping[str, Report]) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ToolMissing.package("jinja2", "eval") from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(Path(__file__).with_name("overview.html").read_text(encoding="utf-8"))
    ordered = [report for _, report in sorted(reports.items())]
    rows = [
        {
            "target": report.target,
            "passed": report.passed,
            "verdict": report.verdict(),
            "stand_in": bool(report.execution.stand_in),
            "executes": report.execution.executes,
            "page": f"{report.target}/{HTML}",
            "share": _share(report),
            "held": [finding.sentence() for finding in report.findings if finding.limit is not None],
            "broken": [finding.sentence() for finding in report.failures],
        }
        for report in ordered
    ]
    return template.render(
        recipe=ordered[0].recipe if ordered else "", rows=rows, passed=all(row["passed"] for row in rows)
    )


def _share(report: Report) -> str:
    fp16_bytes = sum(row.fp16_bytes for row in report.sizes)
    ours = sum(row.bundle_bytes for row in report.sizes)
    return f"{ours / fp16_bytes:.0%}" if fp16_bytes else "unknown"
