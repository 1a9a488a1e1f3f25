"""Second moments of what linears multiply, and what they say of a weight's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from latentc.passes.weights import Floats


@dataclass(frozen=True)
class Moments:
    """Second moments [K, K] of what a linear multiplies, the average of x xᵀ over all rows x.

    Args:
        fit: over the recorded inputs that a pass may fit to.
        held_out: over those that it judges by. With a single record both are the same.
    """

    fit: Floats
    held_out: Floats


class MomentSums:
    """Sums up x xᵀ over all rows x of the values that it is given."""

    def __init__(self) -> None:
        self._sums: dict[str, Floats] = {}
        self._rows: dict[str, int] = {}

    def add(self, values: Mapping[str, Floats]) -> None:
        """Take in values by name, [..., K] each."""
        for name, value in values.items():
            rows = value.reshape(-1, value.shape[-1])
            self._sums[name] = self._sums.get(name, np.float32(0)) + rows.T @ rows
            self._rows[name] = self._rows.get(name, 0) + len(rows)

    def averages(self) -> dict[str, Floats]:
        """[K, K] float32 by name."""
        return {name: total / np.float32(max(1, self._rows[name])) for name, total in self._sums.items()}


def output_norm(weight: Floats, moments: Floats) -> float:
    """Root mean square of what ``weight`` [K, N] gives for inputs of these ``moments``, summed over N."""
    return float(np.sqrt(max(0.0, float(np.vdot(moments @ weight, weight)))))
