"""Line chart: one small inline SVG whose lines stretch and whose labels do not.

The SVG holds lines only (``preserveAspectRatio="none"``, strokes that do not scale); the page places ticks
and labels in percent. So the text keeps its size from a phone to a wall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

_LABEL_PERCENT = 9.0
"""Height of a label in a chart of 200 pixels."""


@dataclass(frozen=True)
class Line:
    """A line of the chart: label, CSS class, and a value for every x from the first on."""

    label: str
    style: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its text, and how far along the axis in percent."""

    text: str
    percent: float


@dataclass(frozen=True)
class DrawnLine:
    """A line as an SVG path in a 100 × 100 box, and where its label is, in percent from the top."""

    label: str
    style: str
    path: str
    end_percent: float
    end_text: str


@dataclass(frozen=True)
class LineChart:
    """All that the page needs to draw it."""

    lines: tuple[DrawnLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def line_chart(lines: Sequence[Line], first: int = 0) -> LineChart | None:
    """Lay out ``lines``, all over the same x; None when fewer than two points are finite.

    Args:
        lines: values of 0 and up; what is not finite leaves a gap.
        first: x of the first value.
    """
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    last = max((len(line.values) for line in lines), default=0) - 1
    if len(finite) < 2 or last < 1:
        return None
    step = nice_step(max(finite) or 1.0)
    top = step * max(1, math.ceil(max(finite) / step - 1e-9))
    drawn = []
    for line in lines:
        commands = []
        pen = "M"
        for x, value in enumerate(line.values):
            if not math.isfinite(value):
                pen = "M"
                continue
            commands.append(f"{pen}{100 * x / last:.2f} {100 - 100 * value / top:.2f}")
            pen = "L"
        ends = [value for value in line.values if math.isfinite(value)]
        end = ends[-1] if ends else 0.0
        drawn.append(
            DrawnLine(line.label, line.style, "".join(commands), 100 - 100 * end / top, f"{end:.3g}")
        )
    drawn = _apart(drawn)
    count = round(top / step)
    every = max(1, math.ceil(last / 10))
    return LineChart(
        tuple(drawn),
        tuple(Tick(str(first + x), 100 * x / last) for x in range(last + 1) if (first + x) % every == 0),
        tuple(Tick(f"{step * n:.3g}", 100 - 100 * n / count) for n in range(count + 1)),
    )


def _apart(lines: list[DrawnLine]) -> list[DrawnLine]:
    """``lines`` in their order, labels of ends that lie close together moved down to be readable."""
    placed: dict[int, float] = {}
    free = -math.inf
    for number in sorted(range(len(lines)), key=lambda n: lines[n].end_percent):
        placed[number] = max(lines[number].end_percent, free)
        free = placed[number] + _LABEL_PERCENT
    return [replace(line, end_percent=placed[number]) for number, line in enumerate(lines)]


def nice_step(largest: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides 0…``largest`` into three to six parts."""
    rough = largest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if rough <= factor * power * 1.0001)
