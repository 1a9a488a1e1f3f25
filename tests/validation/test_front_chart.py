import math

import pytest

from latentc.validation.front_chart import FrontChart, Mark, front_chart
from latentc.validation.line_chart import Tick
from latentc.validation.report import FrontRow


def row(ratio: float, sqnr_db: float, int4: int = 0, int8: int = 0, *, taken: bool = False) -> FrontRow:
    error = 10 ** (-sqnr_db / 20)
    return FrontRow("unet", ratio, error, int4, int8, 10 - int4 - int8, taken=taken)


def drawn(rows: list[FrontRow], measured_db: float | None = None) -> FrontChart:
    chart = front_chart(rows, measured_db)
    assert chart is not None
    return chart


def test_a_front_in_percent() -> None:
    chart = drawn([row(0.5, 40, 0, 10), row(0.25, 20, 10), row(0.3, 30, 5, 5)])
    assert chart.path == "M0.00 100.00L20.00 50.00L100.00 0.00"
    assert chart.layers == 10
    assert [(tick.text, round(tick.percent, 6)) for tick in chart.x_ticks] == [
        ("0.25", 0), ("0.30", 20), ("0.35", 40), ("0.40", 60), ("0.45", 80), ("0.50", 100)
    ]  # fmt: skip
    assert [tick.text for tick in chart.y_ticks] == ["20", "25", "30", "35", "40"]
    assert (chart.y_ticks[0], chart.y_ticks[-1]) == (Tick("20", 100), Tick("40", 0))
    assert (chart.taken, chart.measured) == (None, None)


def test_bands_hold_until_the_next_choice() -> None:
    chart = drawn([row(0.25, 20, 10), row(0.3, 30, 5, 5), row(0.5, 40, 2, 8)])
    assert [(band.label, band.style) for band in chart.bands] == [("INT8", "int8"), ("INT4", "int4")]
    assert chart.bands[1].path == "M0 100H0.00V0.00H20.00V50.00H100.00V80.00H100V100Z"
    assert chart.bands[0].path == "M0 100H0.00V0.00H20.00V0.00H100.00V0.00H100V100Z"
    with_floats = drawn([row(0.25, 20, 10), row(1.0, 60)])
    assert [band.label for band in with_floats.bands] == ["float", "INT4"]


def test_the_taken_point_and_what_it_came_to() -> None:
    rows = [row(0.25, 20), row(0.5, 40), row(0.375, 35, taken=True)]
    chart = drawn(rows, 30.0)
    assert chart.taken is not None
    assert (chart.taken.x_percent, chart.taken.text) == (50, "35.0 dB foretold")
    assert chart.taken.y_percent == pytest.approx(25)
    assert chart.measured == Mark(50, 50, "30.0 dB measured")
    assert drawn(rows).measured is None


@pytest.mark.parametrize("measured_db", [3.0, 57.0])
def test_a_measurement_beside_the_front_is_inside_the_plot(measured_db: float) -> None:
    chart = drawn([row(0.25, 20), row(0.5, 40, taken=True)], measured_db)
    assert chart.measured is not None
    assert 0 <= chart.measured.y_percent <= 100
    assert float(chart.y_ticks[0].text) <= measured_db <= float(chart.y_ticks[-1].text)


def test_without_an_error_there_is_no_decibel() -> None:
    exact = FrontRow("unet", 1.0, 0.0, 0, 0, 10, taken=True)
    chart = drawn([row(0.25, 20, 10), row(0.5, 40, 5), exact], 100.0)
    assert chart.path == "M0.00 100.00L100.00 0.00"
    assert (chart.taken, chart.measured) == (None, None)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(0.25, 20)],
        [row(0.25, 20), row(0.25, 20, taken=True)],
        [row(0.25, 20), FrontRow("unet", 1.0, 0.0, 0, 0, 10, taken=False)],
        [row(0.25, 20), FrontRow("unet", 1.0, math.nan, 0, 0, 10, taken=False)],
    ],
)
def test_too_few_points_make_no_chart(rows: list[FrontRow]) -> None:
    assert front_chart(rows) is None


def test_choices_that_lose_alike_have_a_chart() -> None:
    assert len(drawn([row(0.25, 20.5), row(0.5, 20.5)]).y_ticks) > 1
