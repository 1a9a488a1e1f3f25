"""GPTQ: round the rows of a weight one after the other, and let the rows to come make up for the error.

Frantar et al. 2022 (arXiv 2210.17323), with the rows of the largest inputs first and with steps that are
fixed beforehand, so that the order changes no bytes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentc.errors import PassError
from latentc.passes.one_thread import one_thread
from latentc.passes.weights import Floats

DAMPING = 0.01
"""Part of the mean moment that is added to every input's own: a record of inputs is never complete."""
_LEAST_DAMPING = 1e-30  # for inputs that were always zero
_BLOCK = 128
"""Rows whose errors reach the rest of the weight in one product."""
_STRIP = 16
"""Rows whose errors reach the rest of their block in one product."""
_COLUMNS = 1024
"""Columns, which know nothing of each other, that are rounded at a time: they stay in a core's cache."""
_LEAF = 64
"""Up to this side a triangle is inverted as any other matrix."""


@dataclass(frozen=True)
class RowFactor:
    """In which order rows are rounded, and what the later ones make up for; the same for all weights.

    Args:
        order: [K], the row of the largest inputs first.
        factor: [K, K], upper triangular U with Uᵀ U = (moments + damping)⁻¹, rows and columns in this order.
    """

    order: NDArray[np.intp]
    factor: Floats


def row_factor(moments: Floats) -> RowFactor:
    """The factor of ``moments`` [K, K], the average x xᵀ of what a weight is multiplied with.

    Raises:
        PassError: the moments hold NaN or infinity.
    """
    if not np.isfinite(moments).all():
        raise PassError("gptq", "the recorded inputs hold NaN or infinity", "build the calibration again")
    order = np.argsort(-np.diagonal(moments), kind="stable")
    with one_thread():
        damped = moments[np.ix_(order, order)].astype(np.float64)
        mean = float(np.trace(damped)) / len(damped)
        damped[np.diag_indices_from(damped)] += max(DAMPING * mean, _LEAST_DAMPING)
        # damped = V Vᵀ with V upper triangular, from the last row up; then U = V⁻¹
        upper = np.asarray(np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1], dtype=np.float64)
        return RowFactor(order, _inverse_triangle(upper).astype(np.float32))


def gptq_codes(weight: Floats, steps: Floats, rows: RowFactor) -> NDArray[np.int8]:
    """INT4 codes of ``weight`` for given steps, with the least error that rounding in turn finds.

    Args:
        weight: [K, N], finite.
        steps: [K / group, N], positive.
        rows: of what the weight is multiplied with.

    Returns:
        [K, N], from -8 to 7.
    """
    K, N = weight.shape
    order, factor = rows.order, rows.factor
    with one_thread():
        rest, sizes = weight[order], np.repeat(steps, K // len(steps), axis=0)[order]
        codes = np.empty((K, N), np.int8)
        for start in range(0, K, _BLOCK):
            block = slice(start, min(start + _BLOCK, K))
            among, onwards = factor[block, block], factor[block, block.stop :]
            errors = np.empty_like(rest[block])
            for left in range(0, N, _COLUMNS):
                columns = slice(left, left + _COLUMNS)
                found, errors[:, columns] = _round_block(rest[block, columns], sizes[block, columns], among)
                codes[order[block], columns] = found
            rest[block.stop :] -= onwards.T @ errors
    return codes


def _round_block(weight: Floats, sizes: Floats, factor: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Codes [k, n] of the rows of ``weight`` in their order, and the error that each leaves to later rows.

    Args:
        weight: [k, n]; what earlier rows left to these is in it.
        sizes: [k, n], the steps.
        factor: [k, k], upper triangular.
    """
    rest, sizes = np.ascontiguousarray(weight).copy(), np.ascontiguousarray(sizes)
    codes, errors = np.empty(rest.shape, np.int8), np.empty_like(rest)
    for top in range(0, len(rest), _STRIP):
        end = min(top + _STRIP, len(rest))
        for row in range(top, end):
            code = np.clip(np.rint(rest[row] / sizes[row]), -8, 7)
            codes[row] = code
            errors[row] = (rest[row] - code * sizes[row]) / factor[row, row]
            rest[row + 1 : end] -= factor[row, row + 1 : end, None] * errors[row]
        rest[end:] -= factor[top:end, end:].T @ errors[top:end]
    return codes, errors


def _inverse_triangle(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of an upper triangular matrix, by halves: a sixth of the work of any other matrix."""
    K = len(upper)
    if K <= _LEAF:
        return np.asarray(np.triu(np.linalg.inv(upper)))
    half = K // 2
    inverse = np.zeros_like(upper)
    inverse[:half, :half] = _inverse_triangle(upper[:half, :half])
    inverse[half:, half:] = _inverse_triangle(upper[half:, half:])
    inverse[:half, half:] = -(inverse[:half, :half] @ upper[:half, half:]) @ inverse[half:, half:]
    return inverse
