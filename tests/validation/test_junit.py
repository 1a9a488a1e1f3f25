from xml.etree import ElementTree

from latentc.validation.finding import Finding
from latentc.validation.junit import report_to_junit
from latentc.validation.metric import Direction
from latentc.validation.report import Execution, Report

AT_LEAST, AT_MOST = Direction.AT_LEAST, Direction.AT_MOST

GOLDEN = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuites name="latentc">
  <testsuite name="latentc shapes-sd onnx" tests="4" failures="2" errors="0" skipped="0">
    <testcase classname="shapes-sd.onnx.unet" name="sqnr_db">
      <failure type="limit" message="unet.sqnr_db is 17.2 dB, limit at least 18 dB">unet.sqnr_db is 17.2 dB, limit at least 18 dB</failure>
    </testcase>
    <testcase classname="shapes-sd.onnx.unet" name="relative_error">
      <system-out>unet.relative_error is 0.138, no limit</system-out>
    </testcase>
    <testcase classname="shapes-sd.onnx.unet" name="not_finite">
      <system-out>unet.not_finite is 0 values, limit at most 0 values</system-out>
    </testcase>
    <testcase classname="shapes-sd.onnx.pictures" name="ssim">
      <failure type="not-measured" message="pictures.ssim is not measured, limit at least 0.9 (a &lt; b &amp; &quot;c&quot;)">pictures.ssim is not measured, limit at least 0.9 (a &lt; b &amp; "c")</failure>
    </testcase>
  </testsuite>
</testsuites>
"""  # noqa: E501 # one line of XML a failure, as CI systems read it

EMPTY = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuites name="latentc">
  <testsuite name="latentc shapes-sd onnx" tests="1" failures="0" errors="1" skipped="0">
    <testcase classname="shapes-sd.onnx.report" name="findings">
      <error type="empty" message="failed: nothing was measured" />
    </testcase>
  </testsuite>
</testsuites>
"""


def report(*findings: Finding) -> Report:
    return Report("shapes-sd", "onnx", "stable-diffusion", Execution(()), findings)


def test_one_test_case_a_finding() -> None:
    text = report_to_junit(
        report(
            Finding("unet", "sqnr_db", 17.2, 18.0, "dB", AT_LEAST),
            Finding("unet", "relative_error", 0.138, None, "", AT_MOST),
            Finding("unet", "not_finite", 0.0, 0.0, "values", AT_MOST),
            Finding("pictures", "ssim", None, 0.9, "", AT_LEAST, 'a < b & "c"'),
        )
    )
    assert text == GOLDEN
    ElementTree.fromstring(text.encode())


def test_a_report_without_findings_is_an_error() -> None:
    assert report_to_junit(report()) == EMPTY
