"""Int4 weight: codes and steps of one linear, and how the steps are chosen.

Steps are positive, since TensorRT's parser refuses others (onnx/onnx-tensorrt #764), and are rounded to
float16 before the codes are, so that no target loses anything by storing them so. NNCF's steps for
symmetric INT4 use the sign to reach the sixteenth level; a search over shrunken steps, each group for
itself, makes up for its loss: 0.095 relative error either way on normal weights with groups of 64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentc.passes.nncf_bridge import int4_codes, int4_steps
from latentc.passes.weights import Floats

# Multiples of (largest magnitude / 8) to try. 8/7 clips nothing; below 0.8 clipping has never won a group
# of 64 or 128 on normal, heavy-tailed or trained weights.
_SHRINKS = tuple(1.16 - 0.04 * index for index in range(10))
SMALLEST_STEP = np.float32(2.0**-24)
"""The smallest positive float16."""


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
    steps = _best_steps(weight, group)
    return Int4Weight(int4_codes(weight, steps, group), steps)


def _best_steps(weight: Floats, group: int) -> Floats:
    K, N = weight.shape
    grouped = weight.reshape(K // group, group, N)
    largest = np.abs(int4_steps(weight, group))
    best = np.zeros_like(largest)
    least = np.full_like(largest, np.inf)
    for shrink in _SHRINKS:
        steps = np.maximum(
            (largest * np.float32(shrink)).astype(np.float16).astype(np.float32), SMALLEST_STEP
        )
        wide = steps[:, None, :]
        error = np.square(np.clip(np.rint(grouped / wide), -8, 7) * wide - grouped).sum(axis=1)
        better = error < least
        best[better], least[better] = steps[better], error[better]
    return best
