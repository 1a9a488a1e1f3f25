from latentc.validation.finding import Finding
from latentc.validation.markdown import report_to_markdown
from latentc.validation.metric import Direction
from latentc.validation.report import Execution, Report

GOLDEN = """\
## latentc: shapes-sd for rtx failed: 1 of 2 limits broken

> tensorrt-rtx did not run.

> Simulated only: INT4 activations.

| | metric | value | limit |
|---|---|---:|---:|
| **failed** | `unet.sqnr_db` | 17.2 dB | at least 18 dB |
| ok | `pictures.ssim` (baseline 0.9) | 0.91 | at least 0.9 |

Without a limit: `unet.cosine` 0.99.

- CLIP score was not measured.
"""


def test_broken_limits_first_and_nothing_hidden() -> None:
    report = Report(
        "shapes-sd",
        "rtx",
        "stable-diffusion",
        Execution((), ("INT4 activations",), "tensorrt-rtx did not run."),
        (
            Finding("pictures", "ssim", 0.91, 0.9, "", Direction.AT_LEAST, "baseline 0.9"),
            Finding("unet", "sqnr_db", 17.2, 18.0, "dB", Direction.AT_LEAST),
            Finding("unet", "cosine", 0.99, None, "", Direction.AT_LEAST),
        ),
        notes=("CLIP score was not measured.",),
    )
    assert report_to_markdown(report) == GOLDEN


def test_an_empty_report_says_that_it_failed() -> None:
    report = Report("shapes-sd", "onnx", "stable-diffusion", Execution(()), ())
    assert report_to_markdown(report) == "## latentc: shapes-sd for onnx failed: nothing was measured\n"
