import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.validation.made_report import made_report

from latentc.errors import BundleError
from latentc.validation.finding import Finding
from latentc.validation.metric import Direction
from latentc.validation.report import (
    AllotmentRow,
    BuildFacts,
    Execution,
    FrontRow,
    LayerRow,
    RefusalRow,
    Report,
    Timing,
    TrialRow,
)
from latentc.validation.report_json import (
    build_facts_from_json,
    build_facts_to_json,
    read_report,
    report_to_json,
)


def test_a_report_survives_its_json(tmp_path: Path) -> None:
    report = made_report(tmp_path, 4)
    (tmp_path / "report.json").write_text(report_to_json(report), encoding="utf-8")
    assert read_report(tmp_path / "report.json") == report


def test_the_keys_that_others_rely_on(tmp_path: Path) -> None:
    data = json.loads(report_to_json(made_report(tmp_path, 4)))
    assert isinstance(data["passed"], bool)
    for finding in data["findings"]:
        assert set(finding) == {
            "component", "metric", "value", "limit", "passed", "unit", "direction", "note", "interval",
        }  # fmt: skip
        assert isinstance(finding["component"], str)
        assert isinstance(finding["metric"], str)
        assert isinstance(finding["value"], float)
        assert finding["limit"] is None or isinstance(finding["limit"], float)
        assert isinstance(finding["passed"], bool)
        assert isinstance(finding["unit"], str)
        assert finding["direction"] in ("at least", "at most")
    assert set(data) == {
        "format", "passed", "verdict", "recipe", "target", "family", "execution", "findings", "pictures",
        "steps", "sizes", "bundle_bytes", "build", "timings", "notes", "sampling", "scheduler", "environment",
        "provenance", "resolved_recipe",
    }  # fmt: skip


def refuse(text: str) -> float:
    raise AssertionError(f"{text} is not JSON")


@given(st.floats(), st.floats(), st.floats())
def test_whatever_was_measured_is_valid_json(value: float, limit: float, error: float) -> None:
    finding = Finding("unet", "sqnr_db", value, limit, "dB", Direction.AT_LEAST, interval=(value, limit))
    facts = BuildFacts((LayerRow("unet", "to_q.weight", "quantize-int4", error),))
    report = Report("r", "onnx", "flux", Execution(()), (finding,), build=facts)
    data = json.loads(report_to_json(report), parse_constant=refuse)
    assert data["findings"][0]["value"] == (value if math.isfinite(value) else None)
    assert data["findings"][0]["passed"] is finding.passed


def test_a_layer_that_came_out_nan_stays_nan() -> None:
    facts = BuildFacts(
        (LayerRow("unet", "to_q.weight", "quantize-int4", math.nan),),
        (RefusalRow("unet", "quantize-int4", "conv_in", "too small"),),
        (Timing("export", 2.0, 3),),
        (TrialRow("unet", "to_q.weight", "quantize-int4", "gptq", 0.1, taken=True),),
        (FrontRow("unet", 0.3, 0.05, 3, 1, 0, taken=True, device="ort-mobile"),),
        (AllotmentRow("unet", "to_q.weight", "int4+8"),),
    )
    back = build_facts_from_json(build_facts_to_json(facts))
    assert math.isnan(back.layers[0].relative_error)
    assert replace(back, layers=()) == replace(facts, layers=())


def test_a_report_from_before_bytes_were_shared_out(tmp_path: Path) -> None:
    report = made_report(tmp_path, 1)
    data = json.loads(report_to_json(report))
    for name in ("trials", "front", "allotments"):
        del data["build"][name]
    (tmp_path / "report.json").write_text(json.dumps(data), encoding="utf-8")
    assert read_report(tmp_path / "report.json") == replace(
        report, build=replace(report.build, trials=(), front=(), allotments=())
    )


def test_a_front_from_before_there_were_budgets_of_time(tmp_path: Path) -> None:
    report = made_report(tmp_path, 1)
    data = json.loads(report_to_json(report))
    for row in data["build"]["front"]:
        del row["device"]
    (tmp_path / "report.json").write_text(json.dumps(data), encoding="utf-8")
    assert read_report(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 2}', "has format 2, this latentc reads format 1"),
        ('{"format": 1}', "is incomplete or mistyped: 'execution'"),
        ("[]", "holds a list instead of an object"),
        ('{"format"', "cannot be read: Expecting ':' delimiter: line 1 column 10 (char 9)"),
    ],
)
def test_what_is_no_report(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(BundleError) as caught:
        read_report(path)
    assert str(caught.value) == f"{path}: {message}\nfix: validate the bundle again"
