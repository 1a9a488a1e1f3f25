"""Static steps: of values whose INT8 codes share one step for every input, found on recorded inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.calibration import inner_values
from latentc.passes.weights import SMALLEST_STEP, Array, Floats

_LARGEST_CODE = 127
_SHRINKS = tuple(1 - 0.05 * index for index in range(15))
"""Multiples of the largest magnitude to try: rare large values may be clipped when the rest gains by it."""


def static_steps(
    pass_name: str, model: ir.Model, names: Sequence[str], samples: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """For each value the step whose symmetric INT8 codes lose least of it, summed over all ``samples``.

    Args:
        pass_name: for messages.
        model: computes the values; it runs twice.
        names: of float values.
        samples: inputs of ``model`` by name.

    Returns:
        Positive float32 numbers by name; none for a value that is always zero.

    Raises:
        PassError: a value holds NaN or infinity.
    """
    largest = dict.fromkeys(names, np.float32(0))
    for values in inner_values(model, names, samples):
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise PassError(
                    f"{pass_name}: '{name}'",
                    "holds NaN or infinity for a recorded input",
                    "check the checkpoint with diffusers alone, or build the calibration again",
                )
            largest[name] = max(largest[name], np.abs(value).max(initial=0))
    lost = {name: np.zeros(len(_SHRINKS)) for name in names if largest[name] > 0}
    for values in inner_values(model, list(lost), samples) if lost else ():
        for name, value in values.items():
            lost[name] += [_lost(value, step) for step in _steps(largest[name])]
    return {name: float(_steps(largest[name])[int(np.argmin(lost[name]))]) for name in lost}


def _steps(largest: np.float32) -> Floats:
    steps = np.array(_SHRINKS, np.float32) * (largest / np.float32(_LARGEST_CODE))
    return np.asarray(np.maximum(steps, SMALLEST_STEP), dtype=np.float32)


def _lost(value: Floats, step: np.float32) -> float:
    """Sum of the squared errors of ``value`` when it is rounded in ``step``."""
    codes = np.clip(np.rint(value / step), -_LARGEST_CODE, _LARGEST_CODE)
    return float(np.square(codes * step - value, dtype=np.float64).sum())
