"""Front table: the ways to spend a budget that a build could have taken, as texts for terminal and page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latentc.recipes.families.catalogue import FAMILIES
from latentc.validation.report import FrontRow, Report

_LINES = 8
_FINAL_SQNR = "trajectory.final_sqnr_db"


@dataclass(frozen=True)
class FrontTable:
    """A title and rows under a head, whose last cell is over what says which row was taken."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def front_tables(reports: Mapping[str, Report]) -> tuple[FrontTable, ...]:
    """A table a component with at most eight choices and the taken one; targets with one front share it.

    Args:
        reports: by target.
    """
    found: dict[tuple[FrontRow, ...], dict[str, float]] = {}
    for target, report in reports.items():
        for component in dict.fromkeys(row.component for row in report.build.front):
            front = tuple(row for row in report.build.front if row.component == component)
            level = measured_db(report, component)
            found.setdefault(front, {}).update({} if level is None else {target: level})
    return tuple(
        FrontTable(
            f"{front[0].component}: {cost_of(front[0])} against what the final latents keep",
            (share_of(front[0]), "foretold SQNR", "INT4", "INT8", "float", ""),
            tuple(cells_of(row, _measured_text(levels)) for row in spread_evenly(front)),
        )
        for front, levels in found.items()
    )


def cost_of(row: FrontRow) -> str:
    """What the ratio of ``row`` is of, in words."""
    return f"modelled time of its linears on {row.device}" if row.device else "bytes of its linears"


def share_of(row: FrontRow) -> str:
    """What the ratio of ``row`` is over, as a column's head."""
    return "of float's time" if row.device else "of fp16"


def cells_of(row: FrontRow, measured: str = "") -> tuple[str, ...]:
    """The texts of ``row``, in a table's order; ``measured`` follows where it was taken."""
    level = row.sqnr_db
    foretold = "no loss" if row.relative_error == 0 else "unknown" if level is None else f"{level:.1f} dB"
    counts = (str(count) for count in (row.int4_layers, row.int8_layers, row.float_layers))
    taken = f"taken, {measured} measured" if measured else "taken"
    return f"{row.ratio:.3f}", foretold, *counts, taken if row.taken else ""


def each_once(front: Sequence[FrontRow]) -> tuple[FrontRow, ...]:
    """The rows of ``front`` from the cheapest to the dearest; the taken one often is one of the others."""
    taken = {(row.ratio, row.relative_error) for row in front if row.taken}
    once = [row for row in front if row.taken or (row.ratio, row.relative_error) not in taken]
    return tuple(sorted(once, key=lambda row: row.ratio))


def spread_evenly(front: Sequence[FrontRow]) -> tuple[FrontRow, ...]:
    """The taken row of ``front`` and at most eight others, evenly spread from the cheapest to the dearest.

    ``front`` has at least one row. What differs from the taken one by less than a quarter of the distance
    between two rows says nothing new.
    """
    once = each_once(front)
    low, distance = once[0].ratio, (once[-1].ratio - once[0].ratio) / (_LINES - 1)
    taken = [row for row in once if row.taken]
    others = [row for row in once if all(abs(row.ratio - one.ratio) > distance / 4 for one in taken)]
    chosen = list(taken)
    for number in range(_LINES if others else 0):
        wanted = low + number * distance
        chosen.append(min(others, key=lambda row: abs(row.ratio - wanted)))
    return tuple(sorted(dict.fromkeys(chosen), key=lambda row: row.ratio))


def measured_db(report: Report, component: str) -> float | None:
    """Signal to noise of the final latents in ``report``, if it says how ``component`` came out.

    Validation feeds the reference's own embeddings, so nothing but the denoiser moves the latents.
    """
    if all(str(family.denoiser) != component for family in FAMILIES if family.name == report.family):
        return None
    values = [finding.value for finding in report.findings if finding.name == _FINAL_SQNR]
    return next((value for value in values if value is not None and math.isfinite(value)), None)


def _measured_text(levels: Mapping[str, float]) -> str:
    if len(set(levels)) == 1:
        return f"{next(iter(levels.values())):.1f} dB"
    return ", ".join(f"{level:.1f} dB ({target})" for target, level in levels.items())
