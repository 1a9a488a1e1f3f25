"""Front chart: what the final latents would keep for every budget, and how many linears got what.

Two plots over one axis, the cost, drawn as in latentc.validation.line_chart: SVGs stretch, labels do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from latentc.validation.line_chart import Tick, nice_step
from latentc.validation.report import FrontRow

_FEW = 0.6
"""Turns nice_step's two to four steps in a range into three to seven."""


@dataclass(frozen=True)
class Mark:
    """A point of the plot in percent from its left and its top, and what stands beside it."""

    x_percent: float
    y_percent: float
    text: str


@dataclass(frozen=True)
class Band:
    """The linears of one precision and all below it: label, CSS class, an area in a 100 × 100 box."""

    label: str
    style: str
    path: str


@dataclass(frozen=True)
class FrontChart:
    """All that the page needs to draw it.

    Args:
        path: the front as an SVG path in a 100 × 100 box.
        bands: areas over the same x, each painted over the one before.
        layers: how many linears there are: the height of the bands.
        x_ticks: cost over that of floats, as latentc.validation.report.FrontRow has it.
        y_ticks: dB.
        taken: what was built as foretold; None when that cannot be drawn.
        measured: what it came to; None when it was not measured.
    """

    path: str
    bands: tuple[Band, ...]
    layers: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    taken: Mark | None
    measured: Mark | None


def front_chart(front: Sequence[FrontRow], measured_db: float | None = None) -> FrontChart | None:
    """Lay out those rows of ``front`` that have dB; None when fewer than two costs are left.

    Args:
        front: of one component, in any order.
        measured_db: signal to noise of the final latents as it came out with the row that was taken.
    """
    points = sorted(
        (
            (row.ratio, row.sqnr_db, row)
            for row in front
            if row.sqnr_db is not None and math.isfinite(row.ratio)
        ),
        key=lambda point: point[:2],
    )
    if not points or points[0][0] == points[-1][0]:
        return None
    left, right = points[0][0], points[-1][0]
    taken = next((point for point in points if point[2].taken), None)
    levels = [level for _, level, _ in points]
    if taken is not None and measured_db is not None:
        levels.append(measured_db)
    step = nice_step(max(max(levels) - min(levels), 1.0) * _FEW)
    bottom, top = step * math.floor(min(levels) / step), step * math.ceil(max(levels) / step)

    def x(ratio: float) -> float:
        return 100 * (ratio - left) / (right - left)

    def y(level: float) -> float:
        return 100 * (top - level) / (top - bottom)

    return FrontChart(
        path="M" + "L".join(f"{x(ratio):.2f} {y(level):.2f}" for ratio, level, _ in points),
        bands=_bands([(x(ratio), row) for ratio, _, row in points]),
        layers=max(_layers(row) for _, _, row in points),
        x_ticks=_ticks(left, right),
        y_ticks=tuple(
            Tick(f"{bottom + step * n:.3g}", y(bottom + step * n))
            for n in range(round((top - bottom) / step) + 1)
        ),
        taken=None if taken is None else Mark(x(taken[0]), y(taken[1]), f"{taken[1]:.1f} dB foretold"),
        measured=None
        if taken is None or measured_db is None
        else Mark(x(taken[0]), y(measured_db), f"{measured_db:.1f} dB measured"),
    )


def _layers(row: FrontRow) -> int:
    return row.int4_layers + row.int8_layers + row.float_layers


def _bands(points: Sequence[tuple[float, FrontRow]]) -> tuple[Band, ...]:
    """Areas from the bottom up to all linears, up to INT8 and INT4, up to INT4; without empty precisions."""
    rows = [row for _, row in points]
    bands = []
    for label, style, counts, heights in (
        ("float", "float", [row.float_layers for row in rows], [_layers(row) for row in rows]),
        (
            "INT8",
            "int8",
            [row.int8_layers for row in rows],
            [row.int4_layers + row.int8_layers for row in rows],
        ),
        ("INT4", "int4", [row.int4_layers for row in rows], [row.int4_layers for row in rows]),
    ):
        if not any(counts):
            continue
        most = max(map(_layers, rows))
        # counts are whole, and hold until the next choice is affordable
        steps = "".join(
            f"H{x:.2f}V{100 - 100 * height / most:.2f}"
            for (x, _), height in zip(points, heights, strict=True)
        )
        bands.append(Band(label, style, f"M0 100{steps}H100V100Z"))
    return tuple(bands)


def _ticks(low: float, high: float) -> tuple[Tick, ...]:
    """Round numbers between ``low`` and ``high``."""
    step = nice_step((high - low) * _FEW)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(
        Tick(f"{step * n:.{digits}f}", 100 * (step * n - low) / (high - low)) for n in range(first, last + 1)
    )
