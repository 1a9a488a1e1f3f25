"""Metrics of tensors: relative error, cosine and signal to noise, in float64 whatever comes in.

All take two finite arrays of the same shape with at least one element. A NaN or infinity in either makes
the result NaN, which no limit accepts; other shapes are an InternalError of the caller. None depends on the
scale of both arrays together.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from latentc.errors import InternalError

Array: TypeAlias = "npt.NDArray[np.floating] | npt.NDArray[np.integer]"

SQNR_CAP_DB = 200.0
"""What stands for no error at all; float32 results that differ in the last bit give about 150 dB."""


def relative_error(actual: Array, reference: Array) -> float:
    """‖actual - reference‖ / ‖reference‖, Euclidean over all elements; 0 and up.

    A reference of zeros gives 0 for zeros and infinity for anything else.
    """
    signal, noise = _energies(actual, reference)
    if math.isnan(signal) or math.isnan(noise):
        return math.nan
    if noise == 0:
        return 0.0
    return math.sqrt(noise / signal) if signal > 0 else math.inf


def sqnr_db(actual: Array, reference: Array) -> float:
    """Signal to quantization noise, 10 log10(Σ reference² / Σ (actual - reference)²), in dB.

    Within ±SQNR_CAP_DB: the cap for equal arrays, minus the cap for anything against a reference of zeros.
    """
    signal, noise = _energies(actual, reference)
    if math.isnan(signal) or math.isnan(noise):
        return math.nan
    if noise == 0:
        return SQNR_CAP_DB
    if signal == 0:
        return -SQNR_CAP_DB
    return min(SQNR_CAP_DB, max(-SQNR_CAP_DB, 10 * (math.log10(signal) - math.log10(noise))))


def cosine(actual: Array, reference: Array) -> float:
    """Cosine of the angle between the two arrays as vectors, -1…1; symmetric.

    Two arrays of zeros are equal: 1. Zeros against anything else: 0.
    """
    left, right = _pair(actual, reference)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return math.nan
    # scaled by the largest value first, so that squares neither overflow nor vanish
    left_peak, right_peak = float(np.abs(left).max()), float(np.abs(right).max())
    if left_peak == 0 or right_peak == 0:
        return 1.0 if left_peak == right_peak else 0.0
    left, right = left / left_peak, right / right_peak
    value = float(left @ right) / math.sqrt(float(left @ left) * float(right @ right))
    return min(1.0, max(-1.0, value))


def count_not_finite(array: Array) -> int:
    """How many elements are NaN or infinite."""
    return int(array.size - np.isfinite(array).sum())


def _energies(actual: Array, reference: Array) -> tuple[float, float]:
    """Σ reference² and Σ (actual - reference)², both over the same number; NaN when not finite."""
    left, right = _pair(actual, reference)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return math.nan, math.nan
    peak = max(float(np.abs(left).max()), float(np.abs(right).max()))
    if peak == 0:
        return 0.0, 0.0
    right = right / peak
    noise = left / peak - right
    return float(right @ right), float(noise @ noise)


def _pair(actual: Array, reference: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if actual.shape != reference.shape or actual.size == 0:
        raise InternalError(
            "metric",
            f"compares shapes {list(actual.shape)} and {list(reference.shape)}",
            "compare equal shapes",
        )
    return actual.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
