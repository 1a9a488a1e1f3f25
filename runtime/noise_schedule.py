"""The noise schedule of diffusion models trained with betas: what DDIM, Euler and LCM share.

Every formula runs in float32, as diffusers runs it, so that steps agree to the last bits. float64 appears
in three places only: the spaced betas (torch multiplies and adds in one rounding), the cumulative product
(torch accumulates float32 products in float64 on CPUs) and the cosine schedule (diffusers computes it in
Python floats).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from latentc.errors import BundleError
from latentc.recipes.choice import Choice
from latentc.runtime.scheduler_config import SchedulerConfig

Float32Array: TypeAlias = "NDArray[np.float32]"

# The largest beta of the cosine schedule: Nichol and Dhariwal 2021, section 3.2.
_LARGEST_COSINE_BETA = 0.999


class Prediction(Choice):
    """What the denoiser's output means."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"
    SAMPLE = "sample"


class Spacing(Choice):
    """How the timesteps of a run lie among the training timesteps (Lin et al. 2023, table 2)."""

    LEADING = "leading"
    TRAILING = "trailing"
    LINSPACE = "linspace"


def signal_levels(config: SchedulerConfig, beta_start: float, beta_end: float, schedule: str) -> Float32Array:
    """The cumulative product of ``1 - beta`` over the training timesteps (alpha bar).

    Args:
        config: read for num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas and
            rescale_betas_zero_snr.
        beta_start: the scheduler's default of that key.
        beta_end: the scheduler's default of that key.
        schedule: the scheduler's default of beta_schedule.

    Returns:
        [num_train_timesteps] float32, falling from almost 1 towards 0.

    Raises:
        BundleError: a value has the wrong type or range.
        TargetError: a schedule that is not implemented.
    """
    count = config.integer("num_train_timesteps", 1000)
    if count < 2:
        raise BundleError(
            "manifest.json: scheduler.config.num_train_timesteps",
            f"is {count}, wanted at least 2",
            "build the bundle again",
        )
    start = config.number("beta_start", beta_start)
    end = config.number("beta_end", beta_end)
    name = config.choice("beta_schedule", schedule, ("linear", "scaled_linear", "squaredcos_cap_v2"))
    trained = config.numbers("trained_betas")
    if trained is not None:
        betas = np.asarray(trained, dtype=np.float32)
        if len(betas) != count:
            raise BundleError(
                "manifest.json: scheduler.config.trained_betas",
                f"has {len(betas)} values, wanted num_train_timesteps = {count}",
                "build the bundle again",
            )
    elif name == "linear":
        betas = _linspace(start, end, count)
    elif name == "scaled_linear":
        betas = _linspace(start**0.5, end**0.5, count) ** 2
    else:
        betas = _cosine_betas(count)
    if config.flag("rescale_betas_zero_snr", False):
        betas = _without_terminal_signal(betas)
    return _cumulative_product(np.float32(1.0) - betas)


def _linspace(start: float, end: float, count: int) -> Float32Array:
    """torch.linspace in float32: the first half counts up from ``start``, the second down from ``end``.

    torch multiplies and adds in one rounding; float64 gives the same, since the product of a float32 and
    a small whole number is exact there.
    """
    low, high = np.float32(start), np.float32(end)
    step = np.float64((high - low) / np.float32(count - 1))
    index = np.arange(count, dtype=np.float64)
    upward = np.float64(low) + step * index
    downward = np.float64(high) - step * (count - 1 - index)
    return np.where(index < count // 2, upward, downward).astype(np.float32)


def _cosine_betas(count: int) -> Float32Array:
    """Betas of a squared-cosine signal level (Nichol and Dhariwal 2021, equation 17)."""

    def level(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [
        min(1 - level((index + 1) / count) / level(index / count), _LARGEST_COSINE_BETA)
        for index in range(count)
    ]
    return np.asarray(betas, dtype=np.float32)


def _cumulative_product(alphas: Float32Array) -> Float32Array:
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def _without_terminal_signal(betas: Float32Array) -> Float32Array:
    """Betas with a signal-to-noise ratio of zero at the last timestep (Lin et al. 2023, algorithm 1)."""
    root = np.sqrt(_cumulative_product(np.float32(1.0) - betas))
    first, last = root[0], root[-1]
    level = ((root - last) * (first / (first - last))) ** 2
    alphas = np.concatenate([level[:1], level[1:] / level[:-1]])
    return (np.float32(1.0) - alphas).astype(np.float32)
