"""The report as one self-contained HTML file: nothing to fetch, no script. Only this file knows jinja2."""

from __future__ import annotations

from pathlib import Path

from latentc.errors import ToolMissing
from latentc.validation.html_view import view_of_report
from latentc.validation.report import Report
from latentc.validation.table_view import duration, megabytes


def report_to_html(report: Report, folder: Path) -> str:
    """The page for ``report``; its pictures are read from ``folder`` and embedded.

    Raises:
        ToolMissing: jinja2 is not installed.
        UsageError: a picture cannot be read.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ToolMissing.package("jinja2", "eval") from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["megabytes"] = megabytes
    environment.filters["duration"] = duration
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    return template.render(view=view_of_report(report, folder), report=report)
