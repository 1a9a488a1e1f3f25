"""Metrics of pictures: PSNR, SSIM, and whether a picture shows anything at all.

Pictures are [H, W, 3], either uint8 (0…255) or floating point (0…1); both of one kind and one shape, or it is
an InternalError of the caller. A NaN or infinity makes the result NaN, which no limit accepts.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from latentc.errors import InternalError

Pixels: TypeAlias = "npt.NDArray[np.uint8] | npt.NDArray[np.floating]"

PSNR_CAP_DB = 100.0
"""What stands for equal pictures, whose PSNR is infinite: JSON has no infinity, and one equal pair would
make any mean infinite. One channel of one pixel off by one is 85 dB at 64×64 pixels."""

WINDOW_PIXELS = 11
"""Side of SSIM's window; smaller pictures have no SSIM."""

_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


def psnr_db(actual: Pixels, reference: Pixels) -> float:
    """Peak signal to noise ratio, 10 log10(peak² / mean squared error); symmetric, at most PSNR_CAP_DB."""
    left, right = _unit_range(actual, reference)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return math.nan
    error = float(np.mean((left - right) ** 2))
    return min(PSNR_CAP_DB, -10 * math.log10(error)) if error > 0 else PSNR_CAP_DB


def ssim(actual: Pixels, reference: Pixels) -> float:
    """Structural similarity of Wang et al. 2004, mean over pixels and channels, -1…1; symmetric.

    Gaussian window of 11×11 pixels with σ 1.5, K1 = 0.01, K2 = 0.03, population variances, and only
    positions where the window lies within the picture, as in the paper's own program (without its
    downsampling of large pictures).

    Raises:
        InternalError: a picture is smaller than the window.
    """
    left, right = _unit_range(actual, reference)
    if min(left.shape[:2]) < WINDOW_PIXELS:
        raise InternalError("ssim", f"a picture of {left.shape[1]}×{left.shape[0]} pixels is below 11×11")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return math.nan
    left_mean, right_mean = _blur(left), _blur(right)
    left_variance = _blur(left * left) - left_mean**2
    right_variance = _blur(right * right) - right_mean**2
    covariance = _blur(left * right) - left_mean * right_mean
    c1, c2 = _K1**2, _K2**2
    similarity = ((2 * left_mean * right_mean + c1) * (2 * covariance + c2)) / (
        (left_mean**2 + right_mean**2 + c1) * (left_variance + right_variance + c2)
    )
    return float(np.mean(similarity))


def is_blank(picture: npt.NDArray[np.uint8]) -> bool:
    """Whether a picture shows nothing: one colour everywhere but for 2 of 255 levels of deviation.

    Black or grey frames are what overflow in fp16 gives; real flat pictures keep some grain or edges.
    """
    return bool(picture.reshape(-1, picture.shape[-1]).astype(np.float64).std(axis=0).max() <= 2.0)


def _blur(channels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gaussian mean over the window, separable; [H, W, 3] to [H - 10, W - 10, 3]."""
    offsets = np.arange(WINDOW_PIXELS) - (WINDOW_PIXELS - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    height, width = channels.shape[0] - WINDOW_PIXELS + 1, channels.shape[1] - WINDOW_PIXELS + 1
    rows = np.zeros((height, *channels.shape[1:]))
    for offset, weight in enumerate(weights):
        rows += weight * channels[offset : offset + height]
    mean = np.zeros((height, width, channels.shape[2]))
    for offset, weight in enumerate(weights):
        mean += weight * rows[:, offset : offset + width]
    return mean


def _unit_range(actual: Pixels, reference: Pixels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    alike = actual.shape == reference.shape and actual.dtype.kind == reference.dtype.kind
    if not alike or actual.ndim != 3 or actual.size == 0:
        raise InternalError(
            "metric",
            f"compares pictures {actual.dtype} {list(actual.shape)} "
            f"and {reference.dtype} {list(reference.shape)}",
            "compare pictures [H, W, 3] of one kind and shape",
        )
    scale = 255.0 if actual.dtype.kind == "u" else 1.0
    return actual.astype(np.float64) / scale, reference.astype(np.float64) / scale
