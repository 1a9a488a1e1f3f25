"""What a linear's output loses when weight and inputs are rounded to few bits, on rows that were recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from latentc.passes.int4_weight import Int4Weight, best_steps, int4_weight, nearest_codes
from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.one_thread import one_thread
from latentc.passes.quantize_activations import rounded_rows
from latentc.passes.scaled_subspace import ScaledSubspace
from latentc.passes.weights import Floats

_ROUGH_ROWS = 260
"""Rows at most that scales are compared on."""


@dataclass(frozen=True)
class RoundingToCome:
    """How later passes will round a linear.

    Args:
        bits: of the activations: 4 or 8, dynamic, a step for each token and group.
        group: inputs that share a step, in weight and activations.
        rank: of the low-rank branch, which multiplies the unrounded rows; 0 for none.
        symmetric: whether activations are.
    """

    bits: int
    group: int
    rank: int
    symmetric: bool = True

    def error(self, weight: Floats, rows: Floats, exact: Floats | None = None) -> float:
        """Relative error of ``rows`` [R, K] times ``weight`` [K, N]: ‖rounded - exact‖ / ‖exact‖.

        Args:
            weight: finite.
            rows: what it multiplies.
            exact: their product, [R, N], where it is known.
        """
        rounded = self._rounded(rows)
        product = rows @ weight if exact is None else exact
        rank = min(self.rank, *weight.shape)
        if not rank:
            return output_error(product, rounded, int4_weight(weight, self.group).floats())
        branch = low_rank_branch(weight, rank, BranchType.FLOAT16, self.group, refinements=0)
        held = int4_weight(weight - branch.product(), self.group).floats()
        return output_error(product, rounded, held, branch.outputs(rows))

    def rough_errors(self, weight: Floats, rows: Floats, scales: Iterable[Floats]) -> list[float]:
        """Nearly ``error`` of weight · scale and rows / scale, for each of ``scales`` [K].

        Meant for comparing many scales: on some of the rows, and with branches that are each found from the
        one before, so neighbours in ``scales`` should be alike.
        """
        K, N = weight.shape
        rows = rows[:: -(-len(rows) // _ROUGH_ROWS)] if len(rows) else rows
        errors = []
        with one_thread():
            exact = rows @ weight
            rank = min(self.rank, K, N)
            subspace = ScaledSubspace(weight, rank) if rank else None
            for scale in scales:
                scaled, divided = weight * scale[:, None], rows / scale
                beside: Floats | None = None
                if subspace is not None:
                    right, left = subspace.factors(scaled, scale)
                    scaled -= right @ left
                    beside = np.asarray((divided @ right) @ left, dtype=np.float32)
                steps = best_steps(scaled, self.group)
                held = Int4Weight(nearest_codes(scaled, steps), steps).floats()
                rounded = self._rounded(divided)
                errors.append(output_error(exact, rounded, held, beside))
        return errors

    def _rounded(self, rows: Floats) -> Floats:
        return rounded_rows(rows, self.bits, self.group, symmetric=self.symmetric)


def output_error(
    exact: Floats, rounded: Floats, held: Floats, beside: Floats | None = None, size: float | None = None
) -> float:
    """Error of what a rounded linear gives: ‖beside + rounded · held - exact‖ / ``size``.

    Args:
        exact: [R, N], what it should give.
        rounded: [R, K], what it truly multiplies.
        held: [K, N], the weight, or what a branch leaves of it, as its codes hold it.
        beside: [R, N], what a low-rank branch adds.
        size: what the error is relative to, ‖exact‖ if not given; with 0 there is none.
    """
    whole = float(np.linalg.norm(exact)) if size is None else size
    lost = rounded @ held
    lost -= exact
    if beside is not None:
        lost += beside
    return float(np.linalg.norm(lost)) / whole if whole > 0 else 0.0
