"""Progress and clock: how long work tells how far it is, and how it measures time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[float, str], None]
"""Called with the finished fraction (0…1) and a few words on what is being done now."""

Clock: TypeAlias = Callable[[], float]
"""Seconds that only grow, such as time.perf_counter."""


def part_of(progress: Progress, low: float, high: float) -> Progress:
    """A progress whose 0…1 is the part ``low``…``high`` of ``progress``."""
    return lambda fraction, what: progress(low + (high - low) * fraction, what)
