"""What a person sees: progress on a terminal, plain lines elsewhere, tables, error lines."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from latentc.errors import LatentcError

REFRESH_S = 0.1
PLAIN_LINE_EVERY_S = 10.0


def say(text: str = "", stream: TextIO | None = None) -> None:
    """Write one line."""
    out = stream if stream is not None else sys.stdout
    out.write(text + "\n")
    out.flush()


def say_error(error: LatentcError) -> None:
    """The two lines that every error is: what is wrong and where, and the way out."""
    message, _, fix = str(error).partition("\nfix: ")
    first, *more = message.splitlines() or [""]
    say(f"error: {first}", sys.stderr)
    for line in more:
        say(f"       {line}", sys.stderr)
    if fix:
        say(f"fix: {fix}", sys.stderr)


def say_json(data: object) -> None:
    """Write ``data`` as JSON for scripts."""
    say(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False))


def say_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table whose last column is cut to the terminal's width."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    room = shutil.get_terminal_size((200, 24)).columns if sys.stdout.isatty() else 10_000
    for row in [head, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line if len(line) <= room else line[: room - 1] + "…")


def duration_text(seconds: float) -> str:
    """Seconds as a person says them: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size_text(size_bytes: float) -> str:
    """Bytes as a person says them: ``812 B``, ``4.2 KiB``, ``1.3 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024 or unit == "GiB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return ""


@dataclass
class ProgressLines:
    """Shows how a run goes on: one line redrawn on a terminal, one line a step elsewhere."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    cached: int = 0
    _label: str = ""
    _place: str = ""
    _began_s: float = 0.0
    _left_s: float | None = None
    _drawn_s: float = 0.0
    _found: float = 1.0

    def started(self, label: str, number: int, total: int, why: str, seconds_left: float | None) -> None:
        """Name the step and why it runs."""
        self._label, self._place = label, f"[{number}/{total}]"
        self._began_s = self._drawn_s = time.monotonic()
        self._left_s = seconds_left
        self._found = 1.0
        if not self.stream.isatty():
            say(f"{self._place} {label}: {why}", self.stream)
        else:
            self._draw(0.0, why)

    def progressed(self, fraction: float, words: str) -> None:
        """Redraw, not more often than an eye can follow."""
        self._found = min(
            self._found, fraction
        )  # what an earlier run did was not done in the time spent here
        now_s = time.monotonic()
        every_s = REFRESH_S if self.stream.isatty() else PLAIN_LINE_EVERY_S
        if now_s - self._drawn_s < every_s:
            return
        self._drawn_s = now_s
        if self.stream.isatty():
            self._draw(fraction, words)
        else:
            say(
                f"{self._place} {self._label}: {fraction:.0%} {words}{self._time_left(fraction)}", self.stream
            )

    def finished(self, label: str, duration_s: float, cached: bool) -> None:
        """One line a step that was made; what was in the store is only counted."""
        if cached:
            self.cached += 1
            return
        start = "\r\x1b[K" if self.stream.isatty() else ""
        self.stream.write(f"{start}{self._place} {label}: done in {duration_text(duration_s)}\n")
        self.stream.flush()

    def _draw(self, fraction: float, words: str) -> None:
        line = f"{self._place} {self._label} {fraction:4.0%} {words}{self._time_left(fraction)}"
        width = shutil.get_terminal_size((80, 24)).columns
        self.stream.write("\r\x1b[K" + line[: max(width - 1, 1)])
        self.stream.flush()

    def _time_left(self, fraction: float) -> str:
        """An estimate of what is left: of the run while it is no slower than the last, else of this step."""
        spent_s = time.monotonic() - self._began_s
        if self._left_s is not None and spent_s < self._left_s:
            return f", about {duration_text(self._left_s - spent_s)} left"
        done = (fraction - self._found) / (1 - self._found) if self._found < 1 else 0.0
        if 0.05 < done < 1:
            return f", about {duration_text(spent_s / done - spent_s)} left in this step"
        return ""


def rows_of(items: Sequence[Mapping[str, object]], columns: Sequence[str]) -> list[list[str]]:
    """Table rows from mappings, in the order of ``columns``."""
    return [[str(item[column]) for column in columns] for item in items]
