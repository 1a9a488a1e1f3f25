"""Table: means with their deviation, and what is missing or above the ceiling is said."""

from __future__ import annotations

from pathlib import Path

from tests.bench.fidelity.cells import METRICS, Cell, Result, rows, write_result
from tests.bench.fidelity.table import table

ROW = next(rows(["shapes-flux-outliers/scaled/W4A4/svdquant"]))


def result(share: float, psnr_db: float) -> Result:
    return Result(share, dict.fromkeys(METRICS, 0.5) | {"pictures.psnr_db": psnr_db}, 1.0)


def last_line(folder: Path) -> str:
    return list(table([ROW], [0, 1], 8, folder))[-1]


def test_a_row_without_cells_is_missing(tmp_path: Path) -> None:
    assert last_line(tmp_path) == f"| W4A4 | SVDQuant | {' | '.join(['missing'] * 7)} |"


def test_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    write_result(Cell(ROW, 0, 8), result(0.3011, 30.0), tmp_path)
    assert last_line(tmp_path).startswith("| W4A4 | SVDQuant (1 of 2 seeds) | 0.301 | 0.50 | 30.00 |")
    write_result(Cell(ROW, 1, 8), result(0.3011, 31.0), tmp_path)
    assert last_line(tmp_path).startswith("| W4A4 | SVDQuant | 0.301 | 0.50 ± 0.00 | 30.50 ± 0.71 |")


def test_more_bytes_than_allowed_are_said(tmp_path: Path) -> None:
    write_result(Cell(ROW, 0, 8), result(0.31, 30.0), tmp_path)
    assert "| 0.310 above the ceiling |" in last_line(tmp_path)


def test_the_title_names_the_ceiling(tmp_path: Path) -> None:
    lines = list(table([ROW], [0], 8, tmp_path))
    assert lines[1] == "**shapes-flux-outliers, at most 0.302 of fp16 (scaled)**"
