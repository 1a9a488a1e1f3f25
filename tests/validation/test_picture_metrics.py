import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentc.errors import InternalError
from latentc.validation.picture_metrics import PSNR_CAP_DB, is_blank, psnr_db, ssim

Picture = npt.NDArray[np.uint8]


@st.composite
def pairs(draw: st.DrawFn, least: int = 1, most: int = 9) -> tuple[Picture, Picture]:
    shape = (draw(st.integers(least, most)), draw(st.integers(least, most)), 3)
    arrays = hnp.arrays(np.uint8, shape)
    return draw(arrays), draw(arrays)


def naive_psnr_db(actual: Picture, reference: Picture) -> float:
    squares = [(int(a) - int(b)) ** 2 for a, b in zip(actual.flat, reference.flat, strict=True)]
    error = sum(squares) / len(squares)
    return 10 * math.log10(255**2 / error) if error else PSNR_CAP_DB


def naive_ssim(actual: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Wang 2004, window by window, as the formula is printed."""
    axis = np.arange(11) - 5
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        x_all, y_all = (p[..., channel].astype(np.float64) for p in (actual, reference))
        for row in range(actual.shape[0] - 10):
            for column in range(actual.shape[1] - 10):
                x = x_all[row : row + 11, column : column + 11]
                y = y_all[row : row + 11, column : column + 11]
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                both = (window * (x - mx) * (y - my)).sum()
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                values.append((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


@given(pairs())
def test_psnr_agrees_with_whole_numbers(pair: tuple[Picture, Picture]) -> None:
    # float64 against exact integers: 243 sums of squares below one
    assert psnr_db(*pair) == pytest.approx(min(PSNR_CAP_DB, naive_psnr_db(*pair)), abs=1e-9)
    assert psnr_db(*pair) == psnr_db(pair[1], pair[0])


@settings(max_examples=25)  # the naive form is slow
@given(pairs(least=11, most=16))
def test_ssim_agrees_with_the_printed_formula(pair: tuple[Picture, Picture]) -> None:
    value = ssim(*pair)
    # E[x²] - E[x]² against E[(x - E[x])²]: cancellation of values of order 1 in float64
    assert value == pytest.approx(naive_ssim(*pair), abs=1e-9)
    assert value == pytest.approx(ssim(pair[1], pair[0]), abs=1e-12)
    assert -1 - 1e-12 <= value <= 1 + 1e-12


@given(hnp.arrays(np.uint8, (12, 13, 3)))
def test_equal_pictures(picture: Picture) -> None:
    assert psnr_db(picture, picture) == PSNR_CAP_DB
    assert ssim(picture, picture) == pytest.approx(1, abs=1e-12)  # float64


def test_uint8_and_float_pictures_agree() -> None:
    random = np.random.default_rng(0)
    pair = [random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(2)]
    floats = [picture / 255 for picture in pair]
    assert psnr_db(*floats) == pytest.approx(psnr_db(*pair), abs=1e-12)
    assert ssim(*floats) == pytest.approx(ssim(*pair), abs=1e-12)


def test_one_level_in_one_place_is_below_the_cap() -> None:
    left = np.zeros((64, 64, 3), np.uint8)
    right = left.copy()
    right[0, 0, 0] = 1
    assert psnr_db(left, right) == pytest.approx(
        20 * math.log10(255) + 10 * math.log10(64 * 64 * 3), abs=1e-9
    )


def test_more_noise_is_never_better() -> None:
    random = np.random.default_rng(1)
    picture = random.integers(60, 190, (32, 32, 3))
    noise = random.standard_normal(picture.shape)
    noisy = [np.clip(picture + level * noise, 0, 255).astype(np.uint8) for level in (2, 6, 20, 60)]
    clean = picture.astype(np.uint8)
    for metric in (psnr_db, ssim):
        values = [metric(other, clean) for other in noisy]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_is_nan(broken: float) -> None:
    good = np.zeros((12, 12, 3))
    bad = good.copy()
    bad[3, 3, 0] = broken
    for metric in (psnr_db, ssim):
        assert math.isnan(metric(bad, good))
        assert math.isnan(metric(bad, bad))


@pytest.mark.parametrize(
    ("level", "spread", "blank"), [(0, 0, True), (128, 1, True), (255, 0, True), (128, 12, False)]
)
def test_is_blank(level: int, spread: int, blank: bool) -> None:
    noise = np.random.default_rng(2).integers(-spread, spread + 1, (32, 32, 3))
    assert is_blank(np.clip(level + noise, 0, 255).astype(np.uint8)) is blank


def test_mistakes_of_the_caller() -> None:
    with pytest.raises(InternalError) as caught:
        psnr_db(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32))
    assert str(caught.value) == (
        "metric: compares pictures uint8 [4, 4, 3] and float32 [4, 4, 3]\n"
        "fix: compare pictures [H, W, 3] of one kind and shape"
    )
    with pytest.raises(InternalError) as caught:
        ssim(np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20, 3), np.uint8))
    assert str(caught.value) == "ssim: a picture of 20×10 pixels is below 11×11"
