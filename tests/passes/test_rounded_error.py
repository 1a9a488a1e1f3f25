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


@pytest.mark.parametrize("rank", [0, 16])
def test_rough_errors_are_near_and_rank_scales_alike(seed: int, rank: int) -> None:
    weight, rows = made(seed)
    rows[:, [5, 80]] *= 60  # channels that stick out
    peaks = np.abs(rows).max(axis=0)
    scales = [peaks ** np.float32(power) for power in np.linspace(0, 1, 11)]
    rounding = RoundingToCome(4, 64, rank)
    rough = rounding.rough_errors(weight, rows, scales)
    errors = [rounding.error(weight * scale[:, None], rows / scale) for scale in scales]
    np.testing.assert_allclose(rough, errors, rtol=0.05)
    assert errors[int(np.argmin(rough))] <= 1.02 * min(errors)


def test_on_many_rows_the_rough_errors_are_those_of_some(seed: int) -> None:
    weight, rows = made(seed)
    scales = [np.ones(128, np.float32)]
    rounding = RoundingToCome(4, 64, 0)
    assert rounding.rough_errors(weight, np.tile(rows, (10, 1))[::2], scales)[0] == pytest.approx(
        rounding.error(weight, rows), rel=0.05
    )


def test_a_known_product_is_not_computed_again(seed: int) -> None:
    weight, rows = made(seed)
    rounding = RoundingToCome(4, 64, 8)
    assert rounding.error(weight, rows, rows @ weight) == rounding.error(weight, rows)
    assert rounding.error(weight, rows, 2 * (rows @ weight)) > 0.4


def test_rows_of_zeros(seed: int) -> None:
    weight, rows = made(seed)
    assert RoundingToCome(4, 64, 0).error(weight, 0 * rows) == 0.0
