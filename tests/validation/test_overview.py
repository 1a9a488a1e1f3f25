import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from tests.validation.made_report import made_report

from latentc.validation.overview import overview_to_json, write_overview


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.hrefs.append(dict(attrs)["href"] or "")


def test_one_page_leads_to_every_target(tmp_path: Path) -> None:
    report = made_report(tmp_path / "rtx", 4)
    shutil.copytree(tmp_path / "rtx", tmp_path / "onnx")
    reports = {"rtx": replace(report, target="rtx"), "onnx": replace(report, target="onnx")}
    write_overview(reports, tmp_path)
    page = Links()
    page.feed((tmp_path / "report.html").read_text())
    assert page.hrefs == ["onnx/report.html", "rtx/report.html"]
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite")
    assert [suite.get("name", "").split()[-1] for suite in suites] == ["onnx", "rtx"]
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["passed"] == report.passed
    assert {finding["target"] for finding in data["findings"]} == {"onnx", "rtx"}
    assert len(data["findings"]) == 2 * len(report.findings)
    assert {"component", "metric", "value", "limit", "passed", "unit"} <= data["findings"][0].keys()


def test_one_failure_fails_all_and_nothing_passes_nothing(tmp_path: Path) -> None:
    report = made_report(tmp_path, 4)
    good = replace(report, findings=tuple(f for f in report.findings if f.passed))
    bad = replace(report, findings=())
    assert json.loads(overview_to_json({"a": good}))["passed"] is True
    assert json.loads(overview_to_json({"a": good, "b": bad}))["passed"] is False
    assert json.loads(overview_to_json({}))["passed"] is False


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    report = made_report(tmp_path / "onnx", 4, target="onnx")
    write_overview({"onnx": report}, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "http" not in text
    assert "url(" not in text
    assert text.count("data:image/png;base64,") == 2 * 4


def test_no_reports_are_a_page_that_failed(tmp_path: Path) -> None:
    write_overview({}, tmp_path)
    assert "Failed: 0 of 0 targets passed" in (tmp_path / "report.html").read_text()
