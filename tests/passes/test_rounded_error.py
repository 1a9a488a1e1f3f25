"""The error that later passes will make, from their own pieces."""

import numpy as np
import pytest

from latentc.passes.quantize_activations import rounded_rows
from latentc.passes.rounded_error import RoundingToCome


def made(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((128, 96)).astype(np.float32)
    return weight, generator.standard_normal((200, 128)).astype(np.float32)


def test_both_sides_of_a_normal_layer(seed: int) -> None:
    weight, rows = made(seed)
    activations = np.linalg.norm(rounded_rows(rows, 4, 64) - rows) / np.linalg.norm(rows)
    # independent errors add as squares; 4-bit weights lose 0.095 of normal values in groups of 64
    expected = np.hypot(activations, 0.095)
    assert RoundingToCome(4, 64, 0).error(weight, rows) == pytest.approx(expected, rel=0.05)


def test_eight_bits_and_a_branch_lose_less(seed: int) -> None:
    weight, rows = made(seed)
    errors = [RoundingToCome(*one).error(weight, rows) for one in ((4, 64, 0), (8, 64, 0), (8, 64, 64))]
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]
    assert RoundingToCome(8, 64, 1000).error(weight, rows) < 0.01  # all of it in the branch


def test_rows_of_zeros(seed: int) -> None:
    weight, rows = made(seed)
    assert RoundingToCome(4, 64, 0).error(weight, 0 * rows) == 0.0
