"""Drifted ways: the INT4 codes that a weight may get when quantized linears before it changed its input.

A linear that multiplied x now multiplies x̂. By least squares the weight that gives most of x W again is
W + H⁻¹ E[x̂ (x - x̂)ᵀ] W with H = E[x̂ x̂ᵀ]. What this cannot give is at right angles to x̂, so that the squared
error of rounding it adds to the rest, and that is what GPTQ makes small with the same H. So the weight is
corrected first and rounded after it; GPTAQ (asymmetric calibration, arXiv 2504.02692) does both row by row.
"""

from __future__ import annotations

import numpy as np

from latentc.errors import PassError
from latentc.passes.gptq import row_factor
from latentc.passes.int4_weight import Int4Weight, best_steps, int4_weight
from latentc.passes.moments import DriftMoments
from latentc.passes.one_thread import one_thread
from latentc.passes.rounding import gptq_weight
from latentc.passes.weights import Floats

DAMPING = 1.0
"""Part of the mean moment that holds a correction back: a record of inputs is never complete. The best of
0.1, 1 and 3 on shapes-flux, where 0.1 brings half as much; on shapes-sd 0.1 and 1 are alike."""
_LEAST_DAMPING = 1e-30


def drifted_ways(weight: Floats, whole: Floats, group: int, moments: DriftMoments) -> dict[str, Int4Weight]:
    """By name: the nearest codes, GPTQ's for the input as it is now, and GPTQ's of the corrected weight."""
    factor = row_factor(moments.seen)
    nearest = int4_weight(weight, group)
    ways = {"nearest": nearest, "gptq": gptq_weight(weight, nearest.steps, factor)}
    if moments.across.any():
        corrected = corrected_weight(weight, whole, moments)
        ways["corrected-gptq"] = gptq_weight(corrected, best_steps(corrected, group), factor)
    return ways


def corrected_weight(
    weight: Floats, whole: Floats, moments: DriftMoments, damping: float = DAMPING
) -> Floats:
    """``weight`` with what makes up for the drift of its input.

    Args:
        weight: [K, N], what will be quantized.
        whole: [K, N], ``weight`` and what multiplies the same input beside it: a low-rank branch.
        moments: of the input.
        damping: part of the mean moment that is added to every input's own.

    Returns:
        [K, N]; ``weight`` itself where nothing drifts. On the rows of ``moments`` its output, with that of
        what stands beside it, is no farther from x · whole than before.

    Raises:
        PassError: the moments hold NaN or infinity.
    """
    if not (np.isfinite(moments.seen).all() and np.isfinite(moments.across).all()):
        raise PassError("gptq", "the recorded inputs hold NaN or infinity", "build the calibration again")
    with one_thread():
        damped = moments.seen.astype(np.float64)
        mean = float(np.trace(damped)) / len(damped)
        damped[np.diag_indices_from(damped)] += max(damping * mean, _LEAST_DAMPING)
        owed = moments.across.astype(np.float64) @ whole
        return np.asarray(weight + np.linalg.solve(damped, owed), dtype=np.float32)
