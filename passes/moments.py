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


@dataclass(frozen=True)
class DriftMoments:
    """Second moments [K, K] of what a linear multiplies, x̂, where it multiplied x in the original.

    The average over all rows of each, written as columns.

    Args:
        seen: x̂ x̂ᵀ.
        across: x̂ (x - x̂)ᵀ.
        drift: (x - x̂)(x - x̂)ᵀ.
    """

    seen: Floats
    across: Floats
    drift: Floats

    def exact(self) -> Floats:
        """The average x xᵀ."""
        return np.asarray(self.seen + self.across + self.across.T + self.drift, dtype=np.float32)

    def output_error(self, weight: Floats, error: Floats) -> float:
        """How far x̂ (weight - error) is from x weight: root mean square, summed over N.

        Args:
            weight: [K, N].
            error: [K, N], by how much less x̂ is multiplied.
        """
        square = (
            np.vdot(self.drift @ weight, weight)
            + 2 * np.vdot(self.across @ weight, error)
            + np.vdot(self.seen @ error, error)
        )
        return float(np.sqrt(max(0.0, float(square))))


class DriftSums:
    """Sums up the moments of values as they are seen beside those of the original."""

    def __init__(self) -> None:
        self._sums: dict[str, DriftMoments] = {}
        self._rows: dict[str, int] = {}

    def add(self, name: str, seen: Floats, exact: Floats) -> None:
        """Take in the value called ``name``: [..., K] as it is seen, and as it is in the original."""
        K = seen.shape[-1]
        rows = seen.reshape(-1, K)
        missing = exact.reshape(-1, K) - rows
        here = DriftMoments(rows.T @ rows, rows.T @ missing, missing.T @ missing)
        so_far = self._sums.get(name)
        self._sums[name] = here if so_far is None else _sum(so_far, here)
        self._rows[name] = self._rows.get(name, 0) + len(rows)

    def averages(self) -> dict[str, DriftMoments]:
        """By name."""
        found = {}
        for name, total in self._sums.items():
            rows = np.float32(max(1, self._rows[name]))
            found[name] = DriftMoments(total.seen / rows, total.across / rows, total.drift / rows)
        return found


def _sum(one: DriftMoments, other: DriftMoments) -> DriftMoments:
    return DriftMoments(one.seen + other.seen, one.across + other.across, one.drift + other.drift)
