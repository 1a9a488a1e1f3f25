"""The noise: the same everywhere, normal, and independent."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.errors import UsageError
from latentc.runtime.noise import _circle, _log, initial_latent, step_noise

# Sums of a dozen terms in float64: a few units in the last place, 2.2e-16 each.
FLOAT64_TOLERANCE = 2e-15


def test_the_bits_are_fixed() -> None:
    """Anyone's seed 7 makes the picture that seed 7 made when this was written, on any processor."""
    latent = initial_latent([7, 2**64 - 1], 4, 8, 8)
    assert hashlib.sha256(latent.tobytes()).hexdigest() == (
        "dc48a677c070e328d0c8496006192b1010f0682022694e18225924cc15c086a7"
    )
    assert hashlib.sha256(step_noise([7], 3, 4, 8, 8).tobytes()).hexdigest() == (
        "d8e584d214306e38ba435343d80313963d74963b3cd4e3f7d9fbe5932410845d"
    )


def test_it_is_normal_and_uncorrelated() -> None:
    latent = initial_latent([0], 4, 128, 128)
    assert latent.dtype == np.float32
    assert latent.shape == (1, 4, 128, 128)
    # Kolmogorov and Smirnov: 1.63 / √n is passed by one honest sample in a hundred. This one is fixed.
    values = np.sort(latent.ravel()).astype(np.float64)
    expected = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in values])
    distance = np.max(np.abs(expected - (np.arange(len(values)) + 0.5) / len(values)))
    assert distance < 1.63 / math.sqrt(len(values))
    other = step_noise([0], 0, 4, 128, 128)
    # The correlation of 65536 independent pairs has a deviation of 1/256; four of them.
    assert abs(float(np.mean(latent * other))) < 4 / 256
    assert abs(float(np.mean(latent[..., 1:] * latent[..., :-1]))) < 4 / 256


def test_a_picture_depends_on_its_own_seed_only() -> None:
    both = initial_latent([3, 4], 4, 8, 8)
    np.testing.assert_array_equal(both[1], initial_latent([4], 4, 8, 8)[0])
    assert not np.array_equal(both[0], both[1])


def test_odd_counts_lose_nothing() -> None:
    assert initial_latent([1], 1, 3, 3).shape == (1, 1, 3, 3)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_seed_out_of_range(number: int) -> None:
    with pytest.raises(UsageError, match="--seed: is"):
        initial_latent([number], 1, 2, 2)


@given(st.floats(min_value=2.0**-54, max_value=1.0))
def test_logarithm(value: float) -> None:
    expected = math.log(value)
    ours = float(_log(np.array([value]))[0])
    assert abs(ours - expected) <= FLOAT64_TOLERANCE * max(abs(expected), 1e-3)


@given(st.floats(min_value=0.0, max_value=1.0))
def test_circle(turns: float) -> None:
    cosine, sine = _circle(np.array([turns]))
    assert abs(float(cosine[0]) - math.cos(2 * math.pi * turns)) <= FLOAT64_TOLERANCE
    assert abs(float(sine[0]) - math.sin(2 * math.pi * turns)) <= FLOAT64_TOLERANCE
