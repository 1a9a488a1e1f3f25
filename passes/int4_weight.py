"""Int4 weight: codes and steps of one linear, and how the steps are chosen.

Steps are positive, since TensorRT's parser refuses others (onnx/onnx-tensorrt #764), and are rounded to
float16 before the codes are, so that no target loses anything by storing them so. NNCF's steps for
symmetric INT4 use the sign to reach the sixteenth level; a search over shrunken steps, each group for
itself, makes up for its loss: 0.095 relative error either way on normal weights with groups of 64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentc.passes.nncf_bridge import int4_codes, int4_steps
from latentc.passes.weights import SMALLEST_STEP, Floats

# Multiples of (largest magnitude / 8) to try. 8/7 clips nothing; below 0.8 clipping has never won a group
# of 64 or 128 on normal, heavy-tailed or trained weights.
_SHRINKS = tuple(1.16 - 0.04 * index for index in range(10))
_PATCH = 1 << 16
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


def int4_weight(weight: Floats, group: int) -> Int4Weight:
    """Quantize ``weight`` [K, N], each ``group`` along K with the step that leaves it the least error."""
    steps = best_steps(weight, group)
    return Int4Weight(int4_codes(weight, steps, group), steps)


def nearest_codes(weight: Floats, steps: Floats) -> NDArray[np.int8]:
    """The same codes as NNCF's, for searches: without its checks, which take longer than a small layer."""
    K, N = weight.shape
    grouped = weight.reshape(len(steps), -1, N)
    codes = np.clip(np.rint(grouped / steps[:, None, :]), -8, 7)
    return np.asarray(codes.astype(np.int8).reshape(K, N))


def best_steps(weight: Floats, group: int) -> Floats:
    """[K / group, N]: for each ``group`` along K of ``weight`` [K, N] the step of least error, as float16."""
    K, N = weight.shape
    grouped = weight.reshape(K // group, group, N)
    largest = np.abs(int4_steps(weight, group))
    best = np.empty_like(largest)
    width = math.ceil(N / math.ceil(N * group / _PATCH))  # even parts
    count = max(1, _PATCH // (group * width))
    for first in range(0, K // group, count):
        for left in range(0, N, width):
            groups, columns = slice(first, first + count), slice(left, left + width)
            best[groups, columns] = _best_of_patch(grouped[groups, :, columns], largest[groups, columns])
    return best


def _best_of_patch(grouped: Floats, largest: Floats) -> Floats:
    """The best steps [G, N] of weights [G, group, N] whose largest are 8 · ``largest``."""
    grouped = np.ascontiguousarray(grouped)
    best, least = np.zeros_like(largest), np.full_like(largest, np.inf)
    error = np.empty_like(grouped)
    for shrink in _SHRINKS:
        steps = np.maximum(
            (largest * np.float32(shrink)).astype(np.float16).astype(np.float32), SMALLEST_STEP
        )
        wide = steps[:, None, :]
        np.divide(grouped, wide, out=error)
        np.rint(error, out=error)
        np.clip(error, -8, 7, out=error)
        np.multiply(error, wide, out=error)
        np.subtract(error, grouped, out=error)
        np.square(error, out=error)
        lost = error.sum(axis=1)
        better = lost < least
        best[better], least[better] = steps[better], lost[better]
    return best
