import math

import pytest

from latentc.validation.finding import Finding
from latentc.validation.metric import Direction
from latentc.validation.report import Execution, FrontRow, Report


def report(*findings: Finding) -> Report:
    return Report("shapes-sd", "onnx", "stable-diffusion", Execution(("FP32 × FP32",)), findings)


def finding(value: float | None, limit: float | None) -> Finding:
    return Finding("unet", "sqnr_db", value, limit, "dB", Direction.AT_LEAST)


def test_no_findings_is_not_a_pass() -> None:
    assert not report().passed
    assert report().verdict() == "failed: nothing was measured"


def test_findings_without_any_limit_are_not_a_pass() -> None:
    assert not report(finding(20, None)).passed
    assert report(finding(20, None)).verdict() == "failed: nothing was held to a limit"


def test_all_limits_kept() -> None:
    good = report(finding(20, 18), finding(3, None))
    assert good.passed
    assert good.verdict() == "passed: 1 of 1 limits kept"


def test_one_limit_broken() -> None:
    bad = report(finding(20, 18), finding(17, 18))
    assert not bad.passed
    assert bad.failures == (finding(17, 18),)
    assert bad.verdict() == "failed: 1 of 2 limits broken"


def test_a_value_that_is_no_number_fails_without_a_limit() -> None:
    bad = report(finding(20, 18), finding(math.nan, None))
    assert not bad.passed
    assert bad.verdict() == "failed: 0 of 1 limits broken, 1 other value is no number"


@pytest.mark.parametrize(
    ("relative_error", "sqnr_db"),
    [(0.1, 20.0), (1.0, 0.0), (0.0, None), (math.nan, None), (math.inf, None), (-1.0, None)],
)
def test_foretold_decibels(relative_error: float, sqnr_db: float | None) -> None:
    assert FrontRow("unet", 0.3, relative_error, 1, 0, 0, taken=True).sqnr_db == sqnr_db
