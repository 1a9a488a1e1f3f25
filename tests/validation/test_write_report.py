import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.validation.made_report import made_report

from latentc.errors import UsageError
from latentc.validation.report_json import read_report
from latentc.validation.write_report import write_report, write_text


def test_three_files_of_one_verdict(tmp_path: Path) -> None:
    report = made_report(tmp_path, 2)
    write_report(report, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.json", "report.html", "junit.xml", "pictures"
    }  # fmt: skip
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["passed"] is report.passed
    assert read_report(tmp_path / "report.json") == report
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    assert int(suite.attrib["tests"]) == len(report.findings)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_text(tmp_path / "missing" / "report.json", "{}")
    path = tmp_path / "missing"
    assert str(caught.value) == (
        f"{path / 'report.json'}: cannot be written: No such file or directory\nfix: choose another folder"
    )
