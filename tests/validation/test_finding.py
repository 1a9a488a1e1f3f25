import math

import pytest

from latentc.validation.finding import Finding, with_unit
from latentc.validation.metric import Direction

AT_LEAST, AT_MOST = Direction.AT_LEAST, Direction.AT_MOST


@pytest.mark.parametrize(
    ("value", "limit", "direction", "passed"),
    [
        (18.0, 18.0, AT_LEAST, True),
        (17.999, 18.0, AT_LEAST, False),
        (0.1, 0.1, AT_MOST, True),
        (0.11, 0.1, AT_MOST, False),
        (5.0, None, AT_LEAST, True),
        (None, 18.0, AT_LEAST, False),
        (None, None, AT_MOST, False),
        (math.nan, 18.0, AT_LEAST, False),
        (math.nan, 18.0, AT_MOST, False),
        (math.nan, None, AT_LEAST, False),
        (math.inf, 18.0, AT_LEAST, False),
        (-math.inf, 18.0, AT_MOST, False),
    ],
)
def test_passed(value: float | None, limit: float | None, direction: Direction, passed: bool) -> None:
    assert Finding("unet", "sqnr_db", value, limit, "dB", direction).passed is passed


def test_sentence() -> None:
    assert (
        Finding("unet", "sqnr_db", 17.234, 18, "dB", AT_LEAST).sentence()
        == "unet.sqnr_db is 17.23 dB, limit at least 18 dB"
    )
    assert (
        Finding("pictures", "ssim", None, 0.9, "", AT_LEAST, "drawing failed").sentence()
        == "pictures.ssim is not measured, limit at least 0.9 (drawing failed)"
    )
    assert Finding("unet", "cosine", 0.5, None, "", AT_LEAST).sentence() == "unet.cosine is 0.5"


def test_with_unit() -> None:
    assert [with_unit(0.123456, ""), with_unit(27, "dB"), with_unit(math.nan, "dB")] == [
        "0.1235",
        "27 dB",
        "nan dB",
    ]
