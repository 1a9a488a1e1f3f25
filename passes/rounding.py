"""Rounding: how the INT4 codes of a weight are chosen when its steps are."""

from __future__ import annotations

import numpy as np

from latentc.errors import PassError
from latentc.passes.gptq import RowFactor, gptq_codes
from latentc.passes.int4_weight import Int4Weight, int4_weight
from latentc.passes.nncf_bridge import estimated_int4_steps, int4_codes
from latentc.passes.weights import SMALLEST_STEP, Floats
from latentc.recipes.choice import Choice


class Rounding(Choice):
    """The ways to choose codes."""

    NEAREST = "nearest"
    GPTQ = "gptq"
    SCALE_ESTIMATION = "scale-estimation"


def rounded_weight(weight: Floats, group: int, rounding: Rounding, rows: RowFactor | None) -> Int4Weight:
    """``weight`` [K, N] in INT4 with a step for each ``group`` along K.

    Raises:
        PassError: GPTQ without ``rows`` of what the weight is multiplied with; or a rounding that looks at
            rows one by one.
    """
    nearest = int4_weight(weight, group)
    if rounding is Rounding.NEAREST:
        return nearest
    if rounding is Rounding.SCALE_ESTIMATION:
        raise PassError("rounding", "scale-estimation is of quantize-int4 alone", "write gptq or nearest")
    if rows is None:
        raise PassError("gptq", "needs recorded inputs, and there are none", "set calibrated=true")
    return gptq_weight(weight, nearest.steps, rows)


def gptq_weight(weight: Floats, steps: Floats, rows: RowFactor) -> Int4Weight:
    """``weight`` [K, N] in INT4 with GPTQ's codes for ``steps`` [K / group, N] and what it multiplies."""
    return Int4Weight(gptq_codes(weight, steps, rows), steps)


def scale_estimated_weight(weight: Floats, group: int, rows: Floats) -> Int4Weight:
    """``weight`` [K, N] in INT4 with steps that NNCF estimates on ``rows`` [R, K], and the nearest codes."""
    steps = np.maximum(estimated_int4_steps(weight, rows, group), SMALLEST_STEP)
    stored = steps.astype(np.float16).astype(np.float32)
    return Int4Weight(int4_codes(weight, stored, group), stored)
