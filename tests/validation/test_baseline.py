import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.validation.made_report import made_limits

from latentc.errors import UsageError
from latentc.validation.baseline import (
    Baseline,
    baseline_to_json,
    read_baseline,
    updated,
    with_baseline,
)
from latentc.validation.finding import Finding
from latentc.validation.report import Execution, Report

KEY = "shapes-sd/onnx"


def report(**values: float) -> Report:
    limits = made_limits()
    findings = []
    for name, value in values.items():
        subject, short = name.split("__")
        metric = limits.metrics[subject, short]
        findings.append(
            Finding(subject, short, value, limits.limit(subject, short), metric.unit, metric.direction)
        )
    return Report("shapes-sd", "onnx", "stable-diffusion", Execution(()), tuple(findings))


def compare(old: dict[str, float], new: Report) -> Report:
    return with_baseline(new, Baseline({KEY: old}), made_limits(), "baseline.json")


def test_a_value_within_its_slack_passes() -> None:
    compared = compare({"unet.sqnr_db": 20.1}, report(unet__sqnr_db=20.0))
    change = compared.findings[-1]
    assert (change.name, change.passed, change.note) == ("unet.sqnr_db_change", True, "baseline 20.1 dB")
    assert change.value == pytest.approx(-0.1, abs=1e-12)  # a difference of two float64
    assert compared.passed
    assert compared.notes == ()


def test_falling_behind_by_more_fails_although_the_limit_is_kept() -> None:
    compared = compare({"unet.sqnr_db": 21.0}, report(unet__sqnr_db=20.0))
    assert not compared.passed
    assert [finding.sentence() for finding in compared.failures] == [
        "unet.sqnr_db_change is -1 dB, limit at least -0.2 dB (baseline 21 dB)"
    ]


def test_errors_may_not_rise() -> None:
    compared = compare({"unet.relative_error": 0.10}, report(unet__relative_error=0.11))
    assert [finding.sentence() for finding in compared.failures] == [
        "unet.relative_error_change is 0.01, limit at most 0.003 (baseline 0.1)"
    ]


def test_an_improvement_is_said() -> None:
    compared = compare({"pictures.psnr_db": 22.0}, report(pictures__psnr_db=25.0))
    assert compared.passed
    assert compared.notes == (
        "pictures.psnr_db became better than its baseline 22 dB; update the baseline to hold on to it.",
    )


def test_what_is_no_longer_measured_fails() -> None:
    compared = compare({"unet.sqnr_db": 20.0, "pictures.ssim": 0.9}, report(unet__sqnr_db=20.0))
    assert [finding.sentence() for finding in compared.failures] == [
        "pictures.ssim_change is not measured, limit at least -0.01 (baseline 0.9, no longer measured)"
    ]


def test_new_and_forgotten_metrics_are_notes() -> None:
    compared = compare(
        {"unet.sqnr_db": 20.0, "unet.old": 1.0}, report(unet__sqnr_db=20.0, unet__cosine=0.999)
    )
    assert compared.passed
    assert compared.notes == (
        "The baseline's unet.old is no metric of this version; update the baseline.",
        "Not in the baseline yet: unet.cosine.",
    )


def test_rounding_noise_is_no_change() -> None:
    # a float32 component that came out at 126 dB on one machine and at 119 dB on another
    compared = compare(
        {"unet.sqnr_db": 126.0, "unet.relative_error": 5e-7},
        report(unet__sqnr_db=119.0, unet__relative_error=1.1e-6),
    )
    assert compared.passed
    assert compared.notes == ()
    assert not compare({"unet.sqnr_db": 126.0}, report(unet__sqnr_db=99.7)).passed


def test_nan_never_passes_a_baseline() -> None:
    assert not compare({"unet.sqnr_db": 20.0}, report(unet__sqnr_db=math.nan)).findings[-1].passed


def test_update_keeps_other_bundles_and_forgets_changes(tmp_path: Path) -> None:
    compared = compare({"unet.sqnr_db": 20.0}, report(unet__sqnr_db=20.123456789))
    new = updated(Baseline({"other/rtx": {"unet.cosine": 0.5}, KEY: {"unet.sqnr_db": 1.0}}), compared)
    path = tmp_path / "baseline.json"
    path.write_text(baseline_to_json(new), encoding="utf-8")
    assert json.loads(path.read_text()) == {
        "format": 1,
        "bundles": {"other/rtx": {"unet.cosine": 0.5}, KEY: {"unet.sqnr_db": 20.1234568}},
    }
    assert read_baseline(path) == Baseline(
        {"other/rtx": {"unet.cosine": 0.5}, KEY: {"unet.sqnr_db": 20.1234568}}
    )


def test_a_broken_bundle_is_nobody_s_baseline() -> None:
    with pytest.raises(UsageError) as caught:
        updated(Baseline({}), report(unet__sqnr_db=math.inf))
    assert str(caught.value) == (
        "unet.sqnr_db: is inf, which no baseline can hold\nfix: repair the bundle first"
    )


@given(st.floats(0, 1e6), st.sampled_from(["sqnr_db", "relative_error", "not_finite"]))
def test_a_report_never_falls_behind_itself_even_rounded(value: float, name: str) -> None:
    now = report(**{f"unet__{name}": round(value) if name == "not_finite" else value})
    rounded = json.loads(baseline_to_json(updated(Baseline({}), now)))["bundles"][KEY]
    change = compare(rounded, replace(now)).findings[-1]
    assert change.passed


def test_another_bundle_s_baseline() -> None:
    with pytest.raises(UsageError) as caught:
        with_baseline(report(), Baseline({"a/b": {}}), made_limits(), "baseline.json")
    assert str(caught.value) == (
        "baseline.json: has no entry for 'shapes-sd/onnx', only: a/b\n"
        "fix: add it with --update-baseline baseline.json"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "{path}: there is no such baseline"),
        ("{", "{path}: cannot be read as a baseline: Expecting property name enclosed in double quotes: "
         "line 1 column 2 (char 1)"),
        ("[]", "{path}: is not a baseline of format 1"),
        ('{"format": 2, "bundles": {}}', "{path}: is not a baseline of format 1"),
        ('{"format": 1, "bundles": {"a/b": []}}', "{path}: a/b: is not a table of metric values"),
        ('{"format": 1, "bundles": {"a/b": {"unet.cosine": NaN}}}',
         "{path}: a/b: unet.cosine: is nan, expected a finite number"),
        ('{"format": 1, "bundles": {"a/b": {"unet.cosine": true}}}',
         "{path}: a/b: unet.cosine: is True, expected a finite number"),
    ],
)  # fmt: skip
def test_what_is_no_baseline(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "baseline.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_baseline(path)
    expected = message.format(path=path)
    assert str(caught.value) == f"{expected}\nfix: write one with --update-baseline {path}"
