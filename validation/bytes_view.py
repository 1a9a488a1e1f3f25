"""Where bytes or time went, as the page shows it: the front with what was taken, what each linear got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentc.validation.front_chart import FrontChart, front_chart
from latentc.validation.front_table import cells_of, each_once, measured_db, share_of
from latentc.validation.report import AllotmentRow, FrontRow, Report

_PRECISIONS = ("float", "int8", "int4")


@dataclass(frozen=True)
class BytesView:
    """What one component's budget went to.

    Args:
        component: folder name.
        taken: what was built, in a sentence; empty without a front.
        axis: what the chart's ratios are of; empty without a front.
        share: what the ratios are over, as a column's head.
        chart: None where there is no front, or one that cannot be drawn.
        note: what the chart leaves out; may be empty.
        rows: every choice, texts as latentc.validation.front_table.cells_of has them.
        allotments: how linears are stored, the most bits first, each with the linears.
    """

    component: str
    taken: str
    axis: str
    share: str
    chart: FrontChart | None
    note: str
    rows: tuple[tuple[str, ...], ...]
    allotments: tuple[tuple[str, tuple[str, ...]], ...]


def bytes_views(report: Report) -> tuple[BytesView, ...]:
    """A view for each component whose budget was shared out."""
    build = report.build
    views = []
    for component in dict.fromkeys(
        [row.component for row in build.front] + [row.component for row in build.allotments]
    ):
        front = each_once([row for row in build.front if row.component == component])
        level = measured_db(report, component)
        chart = front_chart(front, level)
        views.append(
            BytesView(
                component=component,
                taken=_taken(front),
                axis=_axis(front[0]) if front else "",
                share=share_of(front[0]) if front else "",
                chart=chart,
                note=_left_out(front) if chart else "",
                rows=tuple(cells_of(row, "" if level is None else f"{level:.1f} dB") for row in front),
                allotments=_allotments([row for row in build.allotments if row.component == component]),
            )
        )
    return tuple(views)


def budget_noun(report: Report) -> str:
    """What was shared out: ``bytes``, or ``time``."""
    return "time" if any(row.device for row in report.build.front) else "bytes"


def _taken(front: Sequence[FrontRow]) -> str:
    row = next((row for row in front if row.taken), None)
    if row is None:
        return ""
    counts = {"in INT4": row.int4_layers, "in INT8": row.int8_layers, "left float": row.float_layers}
    named = [f"{count} {how}" for how, count in counts.items() if count]
    together = " and ".join(part for part in (", ".join(named[:-1]), *named[-1:]) if part)
    whole = f"their time as floats, modelled on {row.device}" if row.device else "their bytes in fp16"
    return f"Taken, of {sum(counts.values())} linears: {together}; {row.ratio:.3f} of {whole}."


def _axis(row: FrontRow) -> str:
    if row.device:
        return f"modelled time of the linears on {row.device}, floats = 1"
    return "bytes of the linears, fp16 = 1"


def _left_out(front: Sequence[FrontRow]) -> str:
    count = sum(row.sqnr_db is None for row in front)
    if not count:
        return ""
    choices = "1 choice has" if count == 1 else f"{count} choices have"
    return f"Not drawn: {choices} no foretold error, so no dB."


def _allotments(rows: Sequence[AllotmentRow]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    def bits_and_rank(text: str) -> tuple[int, int]:
        precision, _, rank = text.partition("+")
        place = _PRECISIONS.index(precision) if precision in _PRECISIONS else len(_PRECISIONS)
        return place, -int(rank) if rank.isdecimal() else 0

    return tuple(
        (_stored_as(text), tuple(row.layer.removesuffix(".weight") for row in rows if row.allotment == text))
        for text in sorted({row.allotment for row in rows}, key=bits_and_rank)
    )


def _stored_as(allotment: str) -> str:
    """``int4+16`` as ``INT4 + rank 16``."""
    precision, _, rank = allotment.partition("+")
    name = precision.upper() if precision.startswith("int") else precision
    return f"{name} + rank {rank}" if rank else name
