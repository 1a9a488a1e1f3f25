"""GPTQ: round the rows of a weight one after the other, and let the rows to come make up for the error.

Frantar et al. 2022 (arXiv 2210.17323), with the rows of the largest inputs first and with steps that are
fixed beforehand, so that the order changes no bytes of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # ships no types

from latentc.errors import PassError
from latentc.passes.weights import Floats

DAMPING = 0.01
"""Part of the mean moment that is added to every input's own: a record of inputs is never complete."""
_LEAST_DAMPING = 1e-30  # for inputs that were always zero
_BLOCK = 128
"""Rows whose errors reach the rest of the weight in one product."""


def gptq_codes(weight: Floats, steps: Floats, moments: Floats) -> NDArray[np.int8]:
    """INT4 codes of ``weight`` for given steps, with the least error that rounding in turn finds.

    Args:
        weight: [K, N], finite.
        steps: [K / group, N], positive.
        moments: [K, K], the average x xᵀ of what the weight is multiplied with.

    Returns:
        [K, N], from -8 to 7.

    Raises:
        PassError: the moments hold NaN or infinity.
    """
    if not np.isfinite(moments).all():
        raise PassError("gptq", "the recorded inputs hold NaN or infinity", "build the calibration again")
    K, N = weight.shape
    group = K // len(steps)
    with threadpool_limits(limits=1, user_api="blas"):  # the same bytes on any number of cores
        order = np.argsort(-np.diagonal(moments), kind="stable")
        factor = _inverse_factor(moments[np.ix_(order, order)].astype(np.float64))
        rest, sizes = weight[order], np.repeat(steps, group, axis=0)[order]
        codes = np.empty((K, N), np.int8)
        for start in range(0, K, _BLOCK):
            end = min(start + _BLOCK, K)
            errors = np.empty((end - start, N), np.float32)
            for row in range(start, end):
                code = np.clip(np.rint(rest[row] / sizes[row]), -8, 7)
                codes[order[row]] = code
                error = (rest[row] - code * sizes[row]) / factor[row, row]
                rest[row + 1 : end] -= np.outer(factor[row, row + 1 : end], error)
                errors[row - start] = error
            rest[end:] -= factor[start:end, end:].T @ errors
    return codes


def _inverse_factor(moments: NDArray[np.float64]) -> Floats:
    """Upper triangular U with Uᵀ U = (moments + damping)⁻¹, [K, K]."""
    mean = float(np.trace(moments)) / len(moments)
    damped = moments + max(DAMPING * mean, _LEAST_DAMPING) * np.eye(len(moments))
    inverse = np.linalg.inv(damped)
    return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T, dtype=np.float32)
