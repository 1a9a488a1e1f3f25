"""Relative error: its scale, and the zero that nothing is relative to."""

from __future__ import annotations

import numpy as np
import pytest

from latentc.passes.relative_error import relative_error


def test_it_is_of_the_wanted_size() -> None:
    wanted = np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)
    assert relative_error(wanted, wanted) == 0.0
    assert relative_error(wanted * np.float32(1.5), wanted) == pytest.approx(0.5)
    assert relative_error(wanted + np.array([[0, 5], [0, 0]], np.float32), wanted) == pytest.approx(1.0)


def test_nothing_is_relative_to_zero() -> None:
    assert relative_error(np.ones(3, np.float32), np.zeros(3, np.float32)) == 0.0
