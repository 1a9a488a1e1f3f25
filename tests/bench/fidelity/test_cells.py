"""Cells: a result is read back as it was written, and another chain is another cell."""

from __future__ import annotations

from pathlib import Path

from tests.bench.fidelity.cells import METRICS, Cell, Result, read_result, rows, write_result

ROWS = tuple(rows([]))
RESULT = Result(0.3, {name: float(index) for index, name in enumerate(METRICS)}, 12.0)


def test_a_result_comes_back(tmp_path: Path) -> None:
    cell = Cell(ROWS[0], 1, 8)
    assert read_result(cell, tmp_path) is None
    write_result(cell, RESULT, tmp_path)
    assert read_result(cell, tmp_path) == RESULT
    assert read_result(Cell(ROWS[0], 2, 8), tmp_path) is None
    assert read_result(Cell(ROWS[0], 1, 16), tmp_path) is None


def test_every_cell_has_a_file_of_its_own(tmp_path: Path) -> None:
    files = {Cell(row, seed, 8).file(tmp_path) for row in ROWS for seed in (0, 1)}
    # four models, two ceilings, six methods for each of three settings, and one more at W4A4
    assert len(files) == 2 * len(ROWS) == 2 * 4 * 2 * (3 * 6 + 1)


def test_only_takes_patterns() -> None:
    chosen = [row.name for row in rows(["shapes-flux-outliers/scaled/W4A4/*", "shapes-sd/*/W4A16/ours"])]
    assert len(chosen) == 7 + 2
    assert chosen[0] == "shapes-sd/literal/W4A16/ours"
