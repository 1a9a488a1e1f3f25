"""The report in a few lines of Markdown, for a terminal, a pull request or a CI job's summary."""

from __future__ import annotations

from latentc.validation.finding import Finding, with_unit
from latentc.validation.report import Report


def report_to_markdown(report: Report) -> str:
    """Verdict, what was executed, a table of the limits with the broken ones first, and the notes."""
    lines = [f"## latentc: {report.recipe} for {report.target} {report.verdict()}", ""]
    if report.execution.stand_in:
        lines += [f"> {report.execution.stand_in}", ""]
    if report.execution.simulated:
        lines += [f"> Simulated only: {'; '.join(report.execution.simulated)}.", ""]
    held = [finding for finding in report.findings if finding.limit is not None or not finding.passed]
    if held:
        lines += ["| | metric | value | limit |", "|---|---|---:|---:|"]
        lines += [_row(finding) for finding in sorted(held, key=lambda finding: finding.passed)]
        lines.append("")
    others = [finding for finding in report.findings if finding.limit is None and finding.passed]
    if others:
        lines += ["Without a limit: " + ", ".join(_short(finding) for finding in others) + ".", ""]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines).rstrip() + "\n"


def _row(finding: Finding) -> str:
    value = "not measured" if finding.value is None else with_unit(finding.value, finding.unit)
    limit = "" if finding.limit is None else f"{finding.direction} {with_unit(finding.limit, finding.unit)}"
    name = f"`{finding.name}`" + (f" ({finding.note})" if finding.note else "")
    return f"| {'ok' if finding.passed else '**failed**'} | {name} | {value} | {limit} |".replace("\n", " ")


def _short(finding: Finding) -> str:
    value = "not measured" if finding.value is None else with_unit(finding.value, finding.unit)
    return f"`{finding.name}` {value}"
