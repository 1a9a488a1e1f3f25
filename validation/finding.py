"""Finding: one metric, what it came to, and whether that is good enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latentc.validation.metric import Direction


@dataclass(frozen=True)
class Finding:
    """A measured value against its limit.

    Args:
        component: a component's folder name, ``trajectory`` or ``pictures``.
        metric: name within the component; ``<name>_change`` for a comparison with a baseline.
        value: None when it could not be measured although a limit asks for it.
        limit: None when the value is only reported.
        unit: of value and limit; empty for pure numbers.
        direction: which side of the limit is good.
        note: why it was not measured, or what else to know; may be empty.
        interval: 95 % bootstrap interval of a mean over prompts: how much the choice of prompts matters.
    """

    component: str
    metric: str
    value: float | None
    limit: float | None
    unit: str
    direction: Direction
    note: str = ""
    interval: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """Full name, such as ``unet.sqnr_db``."""
        return f"{self.component}.{self.metric}"

    @property
    def passed(self) -> bool:
        """Whether the value was measured, is finite and keeps its limit if it has one."""
        if self.value is None or not math.isfinite(self.value):
            return False
        if self.limit is None:
            return True
        if self.direction is Direction.AT_LEAST:
            return self.value >= self.limit
        return self.value <= self.limit

    def sentence(self) -> str:
        """What was found, in words: ``unet.sqnr_db is 17.2 dB, limit at least 18 dB``."""
        value = "not measured" if self.value is None else with_unit(self.value, self.unit)
        limit = "" if self.limit is None else f", limit {self.direction} {with_unit(self.limit, self.unit)}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.name} is {value}{limit}{note}"


def with_unit(value: float, unit: str) -> str:
    """``value`` with four significant digits and its unit."""
    digits = f"{value:.4g}"
    return f"{digits} {unit}" if unit else digits
