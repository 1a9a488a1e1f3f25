"""Relative error: how far one array is from another, in the other's norm."""

from __future__ import annotations

import numpy as np

from latentc.passes.weights import Floats


def relative_error(seen: Floats, wanted: Floats) -> float:
    """‖seen - wanted‖ / ‖wanted‖; 0 when ``wanted`` is zero, which nothing can be relative to."""
    norm = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(seen - wanted)) / norm if norm > 0 else 0.0
