"""Progress lines with the time left, and the learning-rate curve they run along."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Writes one line to stderr now and then: step, time gone, time left, what was measured."""

    name: str
    steps: int
    first_step: int = 0
    began_s: float = field(default_factory=time.monotonic)

    def write(self, step: int, **measured: float) -> None:
        """Report after ``step`` steps; ``measured`` holds running values such as the loss."""
        gone_s = time.monotonic() - self.began_s
        rate = max(step - self.first_step, 1) / gone_s
        left_s = (self.steps - step) / rate
        values = " ".join(f"{key} {value:.4g}" for key, value in measured.items())
        sys.stderr.write(f"{self.name}: {step}/{self.steps} gone {gone_s:.0f}s left {left_s:.0f}s {values}\n")
        sys.stderr.flush()


def learning_rate(step: int, steps: int, peak: float, warmup_steps: int = 100) -> float:
    """Linear warm-up, then a cosine down to a hundredth of ``peak``."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
