"""Second moments of what linears multiply, and what they say of a weight's output."""

from __future__ import annotations

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


def output_norm(weight: Floats, moments: Floats) -> float:
    """Root mean square of what ``weight`` [K, N] gives for inputs of these ``moments``, summed over N."""
    return float(np.sqrt(max(0.0, float(np.vdot(moments @ weight, weight)))))
