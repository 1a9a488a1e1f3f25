"""What a linear's output loses when weight and inputs are rounded to few bits, on rows that were recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentc.passes.int4_weight import int4_weight
from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.quantize_activations import rounded_rows
from latentc.passes.weights import Floats


@dataclass(frozen=True)
class RoundingToCome:
    """How later passes will round a linear.

    Args:
        bits: of the activations: 4 or 8, dynamic, a step for each token and group.
        group: inputs that share a step, in weight and activations.
        rank: of the low-rank branch, which multiplies the unrounded rows; 0 for none.
    """

    bits: int
    group: int
    rank: int

    def error(self, weight: Floats, rows: Floats) -> float:
        """Relative error of ``rows`` [R, K] times ``weight`` [K, N]: ‖rounded - exact‖ / ‖exact‖."""
        product = np.zeros_like(weight)
        if rank := min(self.rank, *weight.shape):
            product = low_rank_branch(weight, rank, BranchType.FLOAT16, self.group, refinements=0).product()
        held = int4_weight(weight - product, self.group).floats()
        rounded = rounded_rows(rows, self.bits, self.group)
        return output_error(weight, product, held, rows, rounded, float(np.linalg.norm(rows @ weight)))


def output_error(
    weight: Floats, product: Floats, held: Floats, rows: Floats, rounded: Floats, size: float
) -> float:
    """Error of what a rounded linear gives: ‖rows · product + rounded · held - rows · weight‖ / ``size``.

    Args:
        weight: [K, N], as it should be.
        product: [K, N], what the low-rank branch stands for; zeros without one.
        held: [K, N], the rest as its codes hold it.
        rows: [R, K], what the linear multiplies.
        rounded: [R, K], what it truly multiplies.
        size: what the error is relative to; with 0 there is none.
    """
    error = float(np.linalg.norm(rows @ (product - weight) + rounded @ held))
    return error / size if size > 0 else 0.0
