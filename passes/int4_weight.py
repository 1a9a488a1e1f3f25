"""Int4 weight: codes and steps of one linear, and how the steps are chosen.

Steps are positive, since TensorRT's parser refuses others (onnx/onnx-tensorrt #764), and are rounded to
float16 before the codes are, so that no target loses anything by storing them so. NNCF's steps for
symmetric INT4 use the sign to reach the sixteenth level; a search over shrunken steps, each group for
itself, makes up for its loss: 0.095 relative error either way on normal weights with groups of 64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentc.passes.weights import SMALLEST_STEP, Floats

# Multiples of (largest magnitude / 8) to try. 8/7 clips nothing; below 0.8 clipping has never won a group
# of 64 or 128 on normal, heavy-tailed or trained weights.
_SHRINKS = tuple(1.16 - 0.04 * index for index in range(10))
_PATCH = 1 << 17
"""Weights that are searched at a time: with all that is computed of them they fit into a core's cache."""


@dataclass(frozen=True)
class Int4Weight:
    """A quantized [K, N] weight: ``codes`` from -8 to 7, and ``steps`` [K / group, N] that float16 holds."""

    codes: NDArray[np.int8]
    steps: Floats

    def floats(self) -> Floats:
        """The weight that a runtime computes with, [K, N] float32."""
        group = self.codes.shape[0] // self.steps.shape[0]
        return self.codes.astype(np.float32) * np.repeat(self.steps, group, axis=0)

    def error(self, weight: Floats) -> float:
        """‖what a runtime computes with - ``weight``‖, patch by patch: no copy of either is made."""
        group = self.codes.shape[0] // self.steps.shape[0]
        total = 0.0
        for groups, rows, columns in _patches(weight, group):
            patch = _grouped(self.codes[rows, columns].astype(np.float32), group)
            patch *= self.steps[groups, None, columns]
            patch -= _grouped(weight[rows, columns], group)
            total += float(np.vdot(patch, patch))
        return math.sqrt(total)


def int4_weight(weight: Floats, group: int) -> Int4Weight:
    """Quantize ``weight`` [K, N], each ``group`` along K with the step that leaves it the least error."""
    return int4_weight_and_error(weight, group)[0]


def int4_weight_and_error(weight: Floats, group: int) -> tuple[Int4Weight, float]:
    """``weight`` as int4_weight has it, with its ``error``: one walk for both."""
    K, N = weight.shape
    codes, steps = np.empty((K, N), np.int8), np.empty((K // group, N), np.float32)
    total = 0.0
    for groups, rows, columns in _patches(weight, group):
        patch = _grouped(weight[rows, columns], group)
        found = steps[groups, columns] = _best_of_patch(patch)
        nearest = _nearest(patch, found)
        codes[rows, columns] = nearest.reshape(-1, patch.shape[2])
        nearest *= found[:, None]
        nearest -= patch
        total += float(np.vdot(nearest, nearest))
    return Int4Weight(codes, steps), math.sqrt(total)


def nearest_codes(weight: Floats, steps: Floats) -> NDArray[np.int8]:
    """The codes of ``weight`` [K, N], from -8 to 7, that are nearest for ``steps`` [K / group, N].

    Those of NNCF, without its copies of the weight.
    """
    group = len(weight) // len(steps)
    codes = np.empty(weight.shape, np.int8)
    for groups, rows, columns in _patches(weight, group):
        nearest = _nearest(_grouped(weight[rows, columns], group), steps[groups, columns])
        codes[rows, columns] = nearest.reshape(-1, nearest.shape[2])
    return codes


def best_steps(weight: Floats, group: int) -> Floats:
    """[K / group, N]: for each ``group`` along K of ``weight`` [K, N] the step of least error, as float16."""
    K, N = weight.shape
    best = np.empty((K // group, N), np.float32)
    for groups, rows, columns in _patches(weight, group):
        best[groups, columns] = _best_of_patch(_grouped(weight[rows, columns], group))
    return best


def _patches(weight: Floats, group: int) -> Iterator[tuple[slice, slice, slice]]:
    """Even parts of a weight [K, N]: their groups, rows and columns."""
    K, N = weight.shape
    width = math.ceil(N / math.ceil(N * group / _PATCH))
    count = max(1, _PATCH // (group * width))
    for first in range(0, K // group, count):
        last = min(first + count, K // group)
        for left in range(0, N, width):
            yield slice(first, last), slice(first * group, last * group), slice(left, left + width)


def _grouped(patch: Floats, group: int) -> Floats:
    """[G, group, N] of rows [G · group, N], turned where they lie by columns."""
    return np.ascontiguousarray(patch).reshape(-1, group, patch.shape[1])


def _nearest(grouped: Floats, steps: Floats) -> Floats:
    """The codes of weights [G, group, N], in float32, for ``steps`` [G, N]."""
    codes: Floats = grouped / steps[:, None]
    np.rint(codes, out=codes)
    np.clip(codes, -8, 7, out=codes)
    return codes


def _best_of_patch(grouped: Floats) -> Floats:
    """The best steps [G, N] of weights [G, group, N]."""
    error, codes = np.empty(grouped.shape, np.float32), np.empty(grouped.shape, np.float32)
    largest: Floats = np.abs(grouped, out=error).max(axis=1) / np.float32(8)
    best, least = np.zeros(largest.shape, np.float32), np.full_like(largest, np.inf)
    for shrink in _SHRINKS:
        steps = np.maximum(
            (largest * np.float32(shrink)).astype(np.float16).astype(np.float32), SMALLEST_STEP
        )
        np.multiply(grouped, (1 / steps)[:, None, :], out=error)
        np.rint(error, out=codes)
        np.clip(codes, -8, 7, out=codes)
        np.subtract(error, codes, out=error)
        lost = np.einsum("gkn,gkn->gn", error, error) * np.square(steps)
        better = lost < least
        np.copyto(best, steps, where=better)
        np.copyto(least, lost, where=better)
    return best
