"""The report as one self-contained HTML file: nothing to fetch, no script."""

from __future__ import annotations

from pathlib import Path

from latentc.validation.html_view import view_of_report
from latentc.validation.page import render_page
from latentc.validation.report import Report


def report_to_html(report: Report, folder: Path) -> str:
    """The page for ``report``; its pictures are read from ``folder`` and embedded.

    Raises:
        ToolMissing: jinja2 is not installed.
        UsageError: a picture cannot be read.
    """
    return render_page("report.html", view=view_of_report(report, folder), report=report)
