"""Low rank: the branch that leaves the smallest INT4 error behind, as it will be stored.

The branch takes the directions with the largest singular values out of a weight, so that what INT4 has
to hold is smaller (SVDQuant, arXiv 2411.05007, section 4.2). Like there, it is then refined against the
quantizer: fit the branch to what INT4 cannot hold, quantize the rest again, keep the best. The weights
alone decide; no data is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # ships no types

from latentc.passes.int4_weight import int4_weight
from latentc.passes.weights import Floats
from latentc.recipes.choice import Choice

EXACT_SIDE = 1536
"""Up to this smaller side the singular vectors are exact (an eigendecomposition of the Gram matrix in
float64: 0.1 s at 1280); beyond, subspace iteration from a fixed start, 1.0005 times the least residual."""
_OVERSAMPLED = 16
_ROUNDS = 4
_WARM_ROUNDS = 2
_LEFT_STEP = np.float32(2.0**-7)


class BranchType(Choice):
    """How the two small matrices are stored."""

    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(frozen=True)
class Branch:
    """right [K, R] and left [R, N] as stored, and the steps that turn codes into numbers.

    For float16 the matrices are the numbers and the steps are empty. For int8 they are codes from -127
    to 127, ``right_steps`` is [R] and ``left_step`` one number: each row of left is scaled to reach
    127, and its size moves into the column of right.
    """

    right: NDArray[np.generic]
    left: NDArray[np.generic]
    right_steps: NDArray[np.float16]
    left_step: NDArray[np.float16]

    def product(self) -> Floats:
        """Multiply right by left with the stored values, [K, N] float32."""
        right, left = self.right.astype(np.float32), self.left.astype(np.float32)
        if self.right_steps.size:
            right = right * self.right_steps.astype(np.float32)
            left = left * self.left_step.astype(np.float32)
        return np.asarray(right @ left, dtype=np.float32)


def branch_bytes(K: int, N: int, rank: int, branch: BranchType) -> int:
    """Stored bytes of a branch of ``rank`` for a [K, N] weight."""
    return 2 * rank * (K + N) if branch is BranchType.FLOAT16 else rank * (K + N + 2) + 2


def largest_rank(K: int, N: int, group: int, branch: BranchType, max_ratio: float) -> int:
    """The largest rank with which codes, steps and branch take at most ``max_ratio`` of the fp16 bytes.

    Zero or less when codes and steps alone take that much.
    """
    free_bytes = int(max_ratio * 2 * K * N) - K * N // 2 - 2 * (K // group) * N
    return (free_bytes - branch_bytes(K, N, 0, branch)) // (
        branch_bytes(K, N, 1, branch) - branch_bytes(K, N, 0, branch)
    )


def low_rank_branch(weight: Floats, rank: int, branch: BranchType, group: int, refinements: int) -> Branch:
    """The branch of ``weight`` [K, N] with the least ‖weight - branch - int4(weight - branch)‖ that was met.

    Args:
        weight: finite.
        rank: R, with 0 < R <= min(K, N).
        branch: how it will be stored.
        group: of the INT4 quantization to come.
        refinements: how often at most the branch is fitted again; it ends early when the error grows.
    """
    with threadpool_limits(limits=1, user_api="blas"):  # the same bytes on any number of cores
        return _refined(weight, rank, branch, group, refinements)


def _refined(weight: Floats, rank: int, branch: BranchType, group: int, refinements: int) -> Branch:
    fitted = _fit(weight, rank, None)
    best = candidate = _stored(fitted, branch)
    least = np.inf
    for _ in range(refinements + 1 if refinements else 0):
        product = candidate.product()
        held = int4_weight(weight - product, group).floats()
        error = float(np.linalg.norm(weight - product - held))
        if error >= least:
            break
        best, least = candidate, error
        fitted = _fit(weight - held, rank, fitted.subspace)
        candidate = _stored(fitted, branch)
    return best


@dataclass(frozen=True)
class _Fit:
    """The best approximation of a matrix: right [K, R] and left [R, N], sizes shared out evenly.

    ``subspace`` has orthonormal columns, the shorter side's R vectors first, to start the next fit from.
    """

    right: Floats
    left: Floats
    subspace: Floats


def _fit(matrix: Floats, rank: int, start: Floats | None) -> _Fit:
    """Fit rank R to ``matrix`` [K, N]; signs are fixed by a positive largest entry in each row of left."""
    K, N = matrix.shape
    tall = matrix if K >= N else matrix.T  # [long, short]
    subspace = _leading(tall, rank, start)
    basis = subspace[:, :rank]
    scaled = tall @ basis  # [long, R]
    sizes = np.sqrt(_nonzero(np.linalg.norm(scaled, axis=0)))
    one, other = scaled / sizes, basis.T * sizes[:, None]
    right, left = (one, other) if K >= N else (other.T, one.T)
    right, left = right.astype(np.float32), left.astype(np.float32)
    peaks = np.take_along_axis(left, np.abs(left).argmax(axis=1)[:, None], axis=1)[:, 0]
    signs = (1 - 2 * (peaks < 0)).astype(np.float32)
    return _Fit(right * signs, left * signs[:, None], subspace)


def _leading(tall: Floats, rank: int, start: Floats | None) -> Floats:
    """Right singular vectors of ``tall`` [long, short] as columns, the ``rank`` leading ones first.

    From ``start``, an earlier subspace, few rounds of subspace iteration do: a refinement changes little.
    """
    short = tall.shape[1]
    width = min(short, rank + _OVERSAMPLED)
    if start is None and short <= EXACT_SIDE:
        wide = tall.astype(np.float64)
        _, vectors = np.linalg.eigh(wide.T @ wide)
        return np.ascontiguousarray(vectors[:, ::-1][:, :width], dtype=np.float32)
    is_cold = start is None
    if start is None:
        start = np.random.default_rng(0).standard_normal((short, width), dtype=np.float32)
    rounds = _ROUNDS if is_cold else _WARM_ROUNDS
    subspace = np.linalg.qr(start)[0]
    for _ in range(rounds):
        subspace = np.linalg.qr(tall.T @ (tall @ subspace))[0]
    projected = (tall @ subspace).astype(np.float64)
    _, vectors = np.linalg.eigh(projected.T @ projected)
    return np.asarray(subspace @ vectors[:, ::-1].astype(np.float32), dtype=np.float32)


def _stored(fitted: _Fit, branch: BranchType) -> Branch:
    right, left = fitted.right, fitted.left
    empty = np.zeros(0, np.float16)
    if branch is BranchType.FLOAT16:
        return Branch(right.astype(np.float16), left.astype(np.float16), empty, empty)
    rows = _nonzero(np.abs(left).max(axis=1)) / (127 * _LEFT_STEP)
    left_codes = np.rint(left / rows[:, None] / _LEFT_STEP).astype(np.int8)
    sized = right * rows
    steps = _nonzero((_nonzero(np.abs(sized).max(axis=0)) / 127).astype(np.float16).astype(np.float32))
    right_codes = np.clip(np.rint(sized / steps), -127, 127).astype(np.int8)
    return Branch(right_codes, left_codes, steps.astype(np.float16), np.asarray(_LEFT_STEP, np.float16))


def _nonzero(sizes: Floats) -> Floats:
    return np.where(sizes > 0, sizes, np.float32(2.0**-14)).astype(
        np.float32
    )  # any positive step represents zeros


def arrays_of(branch: Branch, rest: Floats) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """The tensors to store, by the ending of their names; ``rest`` first."""
    yield "rest", rest
    yield "right", branch.right
    yield "left", branch.left
    if branch.right_steps.size:
        yield "right.steps", branch.right_steps
        yield "left.step", branch.left_step
