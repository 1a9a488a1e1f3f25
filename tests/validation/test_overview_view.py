from dataclasses import replace
from pathlib import Path

from tests.validation.made_report import made_report

from latentc.validation.overview_view import COLUMNS, drawn_rows, target_view


def test_the_same_prompts_on_every_row(tmp_path: Path) -> None:
    reports = {
        target: made_report(tmp_path / target, 10, noise, target)
        for target, noise in (("onnx", 4), ("rtx", 12))
    }
    original, *others = drawn_rows(reports, tmp_path)
    assert [row.label for row in (original, *others)] == ["original", "onnx", "rtx"]
    prompts = [words.partition(": ")[2] for _, words in original.pictures]
    assert len(set(prompts)) == COLUMNS
    for row in others:
        assert [words.partition(": ")[2] for _, words in row.pictures] == prompts
    worst = min((row for report in reports.values() for row in report.pictures), key=lambda row: row.psnr_db)
    assert prompts[0] == worst.prompt
    assert others[0].note.endswith(" dB PSNR")


def test_targets_that_drew_other_prompts_are_not_compared(tmp_path: Path) -> None:
    report = made_report(tmp_path / "onnx", 3)
    assert drawn_rows({"onnx": report, "rtx": replace(report, pictures=report.pictures[:2])}, tmp_path) == ()
    assert drawn_rows({"onnx": replace(report, pictures=())}, tmp_path) == ()
    assert drawn_rows({}, tmp_path) == ()


def test_a_card(tmp_path: Path) -> None:
    view = target_view(made_report(tmp_path, 4, 60, "rtx", stand_in="ONNX ran"), "rtx/report.html")
    assert (view.target, view.passed, view.page, view.stand_in) == ("rtx", False, "rtx/report.html", True)
    assert dict(view.figures)["Weights"] == "8.75 MB, 40% of fp16"
    assert "One picture" not in dict(view.figures)  # measured on a stand-in
    assert view.broken
