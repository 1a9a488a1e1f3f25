import math
from pathlib import Path

import pytest
from tests.validation.made_report import made_report

from latentc.validation.finding import Finding
from latentc.validation.finding_view import group_findings, score_cards, view_of_finding
from latentc.validation.metric import Direction

AT_LEAST, AT_MOST = Direction.AT_LEAST, Direction.AT_MOST


def test_a_row_against_its_limit() -> None:
    view = view_of_finding(Finding("unet", "sqnr_db", 24.0, 18.0, "dB", AT_LEAST))
    assert (view.value, view.limit, view.status, view.margin) == ("24 dB", "≥ 18 dB", "kept", "6 dB to spare")
    assert (view.fill, view.tick) == (80, 60)  # the scale ends a quarter above the larger of both


@pytest.mark.parametrize(
    ("finding", "status", "margin"),
    [
        (Finding("unet", "sqnr_db", 17.0, 18.0, "dB", AT_LEAST), "broken", "1 dB too low"),
        (Finding("unet", "relative_error", 0.3, 0.2, "", AT_MOST), "broken", "0.1 too high"),
        (Finding("unet", "sqnr_db", 18.0, 18.0, "dB", AT_LEAST), "kept", ""),
        (Finding("unet", "sqnr_db", 17.0, None, "dB", AT_LEAST), "measured", ""),
        (Finding("unet", "sqnr_db", math.nan, None, "dB", AT_LEAST), "broken", ""),
        (Finding("unet", "sqnr_db", None, 18.0, "dB", AT_LEAST), "broken", ""),
    ],
)
def test_status_and_margin(finding: Finding, status: str, margin: str) -> None:
    view = view_of_finding(finding)
    assert (view.status, view.margin) == (status, margin)


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5, 0.99999, 1.0, math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("name", ["cosine", "ssim", "sqnr_db", "relative_error", "not_finite", "invented"])
@pytest.mark.parametrize("limit", [None, 0.0, 0.9, -3.0])
def test_bars_stay_on_the_page(value: float | None, name: str, limit: float | None) -> None:
    view = view_of_finding(Finding("unet", name, value, limit, "", AT_LEAST))
    for percent in (view.fill, view.tick):
        assert percent is None or 0 <= percent <= 100


def test_a_change_shows_its_sign_and_whose_it_is() -> None:
    view = view_of_finding(Finding("unet", "sqnr_db_change", 0.4, -0.2, "dB", AT_LEAST, "baseline 20 dB"))
    assert (view.title, view.value, view.note, view.fill) == (
        "Denoiser (unet): signal to noise", "+0.4 dB", "baseline 20 dB", None
    )  # fmt: skip


def test_groups_keep_every_finding(tmp_path: Path) -> None:
    report = made_report(tmp_path, 4)
    change = Finding("unet", "sqnr_db_change", 0.4, -0.2, "dB", AT_LEAST)
    groups = group_findings([change, *report.findings])
    assert [group.title for group in groups] == [
        "Text encoder", "Denoiser (unet)", "VAE decoder", "Latents along the trajectory", "Pictures",
        "Against the baseline",
    ]  # fmt: skip
    shown = [row.name for group in groups for row in (*group.held, *group.measured)]
    assert sorted(shown) == sorted(finding.name for finding in (*report.findings, change))


def test_cards_hold_what_was_measured(tmp_path: Path) -> None:
    report = made_report(tmp_path, 4)
    assert [card.label for card in score_cards(report)] == [
        "PSNR, mean", "SSIM, mean", "Shows what is asked", "Denoiser SQNR", "Weights", "One picture"
    ]  # fmt: skip
