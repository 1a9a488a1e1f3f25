"""Rounding: how the INT4 codes of a weight are chosen when its steps are."""

from __future__ import annotations

from latentc.errors import PassError
from latentc.passes.gptq import gptq_codes
from latentc.passes.int4_weight import Int4Weight, int4_weight
from latentc.passes.weights import Floats
from latentc.recipes.choice import Choice


class Rounding(Choice):
    """The ways to choose codes."""

    NEAREST = "nearest"
    GPTQ = "gptq"


def rounded_weight(weight: Floats, group: int, rounding: Rounding, moments: Floats | None) -> Int4Weight:
    """``weight`` [K, N] in INT4 with a step for each ``group`` along K.

    Raises:
        PassError: GPTQ without ``moments`` [K, K] of what the weight is multiplied with.
    """
    nearest = int4_weight(weight, group)
    if rounding is Rounding.NEAREST:
        return nearest
    if moments is None:
        raise PassError("gptq", "needs recorded inputs, and there are none", "set calibrated=true")
    return gptq_weight(weight, nearest.steps, moments)


def gptq_weight(weight: Floats, steps: Floats, moments: Floats) -> Int4Weight:
    """``weight`` [K, N] in INT4 with GPTQ's codes for ``steps`` [K / group, N] and ``moments`` [K, K]."""
    return Int4Weight(gptq_codes(weight, steps, moments), steps)
