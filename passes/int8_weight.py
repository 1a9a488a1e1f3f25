"""Int8 weight: codes and steps of one linear, a step for each output.

One step an output, and not one a group, since TensorRT keeps only such weights packed: a weight in blocks
is unfolded to float16 when the engine is built (TensorRT for RTX 1.7.1: an engine of twice the size).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentc.passes.weights import SMALLEST_STEP, Floats


@dataclass(frozen=True)
class Int8Weight:
    """A quantized [K, N] weight: ``codes`` from -127 to 127, and ``steps`` [N] that float16 holds."""

    codes: NDArray[np.int8]
    steps: Floats

    def floats(self) -> Floats:
        """The weight that a runtime computes with, [K, N] float32."""
        return self.codes.astype(np.float32) * self.steps


def int8_weight(weight: Floats) -> Int8Weight:
    """Quantize ``weight`` [K, N] to the nearest of 255 symmetric levels of each column."""
    largest = np.abs(weight).max(axis=0) / np.float32(127)
    steps = np.maximum(largest, SMALLEST_STEP).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint(weight / steps), -127, 127).astype(np.int8)
    return Int8Weight(codes, steps)
