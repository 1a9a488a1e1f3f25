"""What the overview shows: every target's verdict and figures, and the same prompts drawn by all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentc.runtime.picture import load_picture
from latentc.validation.embedded_picture import data_uri
from latentc.validation.finding import with_unit
from latentc.validation.finding_view import PICTURE_TIME, score_cards
from latentc.validation.report import PictureRow, Report
from latentc.validation.table_view import megabytes

COLUMNS = 8
"""How many prompts the overview shows."""


@dataclass(frozen=True)
class TargetView:
    """One target's card.

    Args:
        target: its name.
        passed: its verdict.
        verdict: the same in words.
        page: its own report, relative to the overview.
        stand_in: its own runtime did not run.
        simulated: something in it is only simulated.
        executes: what the target runs, in words.
        figures: label and value of what counts most.
        broken: every broken limit in words.
    """

    target: str
    passed: bool
    verdict: str
    page: str
    stand_in: bool
    simulated: bool
    executes: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    broken: tuple[str, ...]


@dataclass(frozen=True)
class DrawnRow:
    """One side of the comparison: who drew, and a data URI and words for each picture."""

    label: str
    note: str
    pictures: tuple[tuple[str, str], ...]


def target_view(report: Report, page: str) -> TargetView:
    """The card of ``report``, whose own page is at ``page``."""
    stand_in = bool(report.execution.stand_in)
    figures = [
        (card.label, f"{card.value} {card.unit}".strip())
        for card in score_cards(report)
        if not (stand_in and card.label == PICTURE_TIME)  # this CPU's time says nothing about the target
    ]
    fp16_bytes = sum(row.fp16_bytes for row in report.sizes)
    weight_bytes = sum(row.bundle_bytes for row in report.sizes)
    shares = (
        {"Weights": f"{megabytes(weight_bytes)}, {weight_bytes / fp16_bytes:.0%} of fp16"}
        if fp16_bytes
        else {}
    )
    return TargetView(
        target=report.target,
        passed=report.passed,
        verdict=report.verdict(),
        page=page,
        stand_in=stand_in,
        simulated=bool(report.execution.simulated),
        executes=report.execution.executes,
        figures=tuple((label, shares.get(label, value)) for label, value in figures),
        broken=tuple(finding.sentence() for finding in report.failures),
    )


def drawn_rows(reports: Mapping[str, Report], folder: Path) -> tuple[DrawnRow, ...]:
    """The same prompts by the original and by every target, evenly spread from the worst PSNR to the best.

    Args:
        reports: by target; their pictures lie in ``folder/<target>``.
        folder: of the overview.

    Returns:
        The original's row and one for each target; nothing when the targets drew other prompts.

    Raises:
        UsageError: a picture cannot be read.
    """
    by_target = {target: {row.index: row for row in report.pictures} for target, report in reports.items()}
    prompts = {tuple(row.prompt for row in report.pictures) for report in reports.values()}
    if len(prompts) != 1 or not next(iter(prompts)):
        return ()
    columns = _columns([row for rows in by_target.values() for row in rows.values()])
    first = next(iter(by_target))
    original = tuple(
        (_embed(folder / first / row.original), f"Original: {row.prompt}")
        for row in (by_target[first][index] for index in columns)
    )
    return (
        DrawnRow("original", "fp16", original),
        *(
            DrawnRow(
                target,
                _mean_psnr(reports[target]),
                tuple(
                    (_embed(folder / target / rows[index].result), f"{target}: {rows[index].prompt}")
                    for index in columns
                ),
            )
            for target, rows in by_target.items()
        ),
    )


def _columns(rows: Sequence[PictureRow]) -> tuple[int, ...]:
    """Indices of prompts from the one that the targets drew worst to the best, evenly spread."""
    worst: dict[int, float] = {}
    for row in rows:
        value = row.psnr_db if math.isfinite(row.psnr_db) else -math.inf
        worst[row.index] = min(value, worst.get(row.index, math.inf))
    ordered = sorted(worst, key=lambda index: (worst[index], index))
    if len(ordered) <= COLUMNS:
        return tuple(ordered)
    return tuple(ordered[round(n * (len(ordered) - 1) / (COLUMNS - 1))] for n in range(COLUMNS))


def _mean_psnr(report: Report) -> str:
    for finding in report.findings:
        if finding.name == "pictures.psnr_db" and finding.value is not None:
            return f"{with_unit(finding.value, finding.unit)} PSNR"
    return ""


def _embed(path: Path) -> str:
    return data_uri(load_picture(path))
