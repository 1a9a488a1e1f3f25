"""Standard normal noise from a seed: the same bits on every processor and with every numpy.

The raw bits come from Philox (Salmon et al. 2011), whose stream numpy keeps stable; they become normal
by Box and Muller's transform. numpy's own normal distributions promise no stable stream, and its
logarithm, sine and cosine differ in the last bit between processors, so those three are summed here from
additions, multiplications, divisions and square roots alone, which IEEE 754 fixes to the bit. numpy runs
each as a loop of its own, so no compiler can join two of them into one rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentc.errors import UsageError
from latentc.runtime.noise_schedule import Float32Array

_SEEDS = 2**64

# Terms after which the series below are exact to float64: (3 - 2√2)²ⁿ and (π/4)²ⁿ/(2n)! fall under 1e-17.
_LOG_TERMS = 12
_CIRCLE_TERMS = 10


def initial_latent(seeds: Sequence[int], channels: int, height: int, width: int) -> Float32Array:
    """The noise that a run starts from, one picture a seed.

    Args:
        seeds: B seeds, 0…2**64-1; a picture depends on its own seed only, not on its neighbours.
        channels: C of the latent.
        height: h, in latent pixels.
        width: w, in latent pixels.

    Returns:
        [B, C, h, w] float32, mean 0 and deviation 1.

    Raises:
        UsageError: a seed is out of range.
    """
    return np.stack([_normal(seed, 0, (channels, height, width)) for seed in seeds])


def step_noise(seeds: Sequence[int], index: int, channels: int, height: int, width: int) -> Float32Array:
    """Fresh noise for step ``index`` (0 and up), independent of ``initial_latent``; shaped as there."""
    return np.stack([_normal(seed, index + 1, (channels, height, width)) for seed in seeds])


def _normal(seed: int, stream: int, shape: tuple[int, ...]) -> Float32Array:
    """[shape] float32 standard normal; another ``stream`` of the same seed is independent of this one."""
    if not 0 <= seed < _SEEDS:
        raise UsageError("--seed", f"is {seed}, wanted 0…{_SEEDS - 1}", "choose a seed in that range")
    count = math.prod(shape)
    pairs = (count + 1) // 2
    bits = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(2 * pairs)
    # 53 bits, in the middle of each interval, so that 0, which has no logarithm, cannot come.
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * _log(uniform[:pairs]))
    cosine, sine = _circle(uniform[pairs:])
    return np.concatenate([radius * cosine, radius * sine])[:count].astype(np.float32).reshape(shape)


def _log(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm of positive numbers: ln m = 2 artanh((m - 1) / (m + 1)), m near 1."""
    mantissa, exponent = np.frexp(value)
    low = mantissa < math.sqrt(0.5)
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    powers = exponent.astype(np.float64) - low.astype(np.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    total = np.zeros_like(ratio)
    for term in range(_LOG_TERMS, -1, -1):
        total = total * square + 1.0 / (2 * term + 1)
    return 2.0 * ratio * total + powers * math.log(2.0)


def _circle(turns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine and sine of ``turns`` full turns, 0…1: a Taylor series within an eighth, then quarter turns."""
    quarter = np.floor(turns * 4.0 + 0.5)
    angle = (turns - quarter * 0.25) * (2.0 * math.pi)
    square = angle * angle
    cosine, sine = np.zeros_like(angle), np.zeros_like(angle)
    for term in range(_CIRCLE_TERMS, -1, -1):
        sign = -1.0 if term % 2 else 1.0
        cosine = cosine * square + sign / math.factorial(2 * term)
        sine = sine * square + sign / math.factorial(2 * term + 1)
    sine = sine * angle
    step = quarter.astype(np.int64) % 4
    return (
        np.choose(step, [cosine, -sine, -cosine, sine]),
        np.choose(step, [sine, cosine, -sine, -cosine]),
    )
