"""A report as files: report.json for programs, junit.xml for CI, report.html for people."""

from __future__ import annotations

from pathlib import Path

from latentc.errors import UsageError
from latentc.runtime.whole_file import whole_file
from latentc.validation.html_report import report_to_html
from latentc.validation.junit import report_to_junit
from latentc.validation.report import Report
from latentc.validation.report_json import report_to_json

JSON, JUNIT, HTML = "report.json", "junit.xml", "report.html"


def write_report(report: Report, folder: Path) -> None:
    """Write the three files into ``folder``, which holds the report's pictures; each whole or not at all.

    The page comes last, so that without jinja2 the other two are there all the same.

    Raises:
        ToolMissing: jinja2 is not installed.
        UsageError: the folder cannot be written to, or a picture cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / JSON, report_to_json(report))
    write_text(folder / JUNIT, report_to_junit(report))
    write_text(folder / HTML, report_to_html(report, folder))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all; raises UsageError when that cannot be."""
    try:
        with whole_file(path) as file:
            file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(
            str(path), f"cannot be written: {error.strerror}", "choose another folder"
        ) from error
