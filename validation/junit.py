"""The report as JUnit XML: one test case a finding, so that every CI shows which limit broke."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from latentc.validation.report import Report


def report_to_junit(report: Report) -> str:
    """JUnit XML of ``report``; a report without findings is one error."""
    suite_name = f"latentc {report.recipe} {report.target}"
    suite = ElementTree.Element("testsuite", name=suite_name)
    errors = 0
    for finding in report.findings:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"{report.recipe}.{report.target}.{finding.component}",
            name=finding.metric,
        )
        if not finding.passed:
            measured = finding.value is not None and math.isfinite(finding.value)
            kind = "limit" if measured else "not-measured"
            failure = ElementTree.SubElement(case, "failure", type=kind, message=finding.sentence())
            failure.text = finding.sentence()
        elif finding.limit is None:
            ElementTree.SubElement(case, "system-out").text = f"{finding.sentence()}, no limit"
        else:
            ElementTree.SubElement(case, "system-out").text = finding.sentence()
    if not any(finding.limit is not None for finding in report.findings):
        errors = 1
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"{report.recipe}.{report.target}.report", name="findings"
        )
        ElementTree.SubElement(case, "error", type="empty", message=report.verdict())
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(report.failures)))
    suite.set("errors", str(errors))
    suite.set("skipped", "0")
    root = ElementTree.Element("testsuites", name="latentc")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
