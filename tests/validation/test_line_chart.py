import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.validation.line_chart import Line, Tick, line_chart, nice_step


@given(st.floats(1e-9, 1e9))
def test_nice_steps_are_round_and_few(largest: float) -> None:
    step = nice_step(largest)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5, 10)) < 1e-6  # float64 powers of ten
    assert 1.5 < largest / step < 4.01


def test_a_line_in_percent() -> None:
    chart = line_chart([Line("mean", "mean", (0.0, 0.5, 1.0))], first=1)
    assert chart is not None
    assert chart.lines[0].path == "M0.00 100.00L50.00 50.00L100.00 0.00"
    assert (chart.lines[0].end_percent, chart.lines[0].end_text) == (0, "1")
    assert chart.x_ticks == (Tick("1", 0), Tick("2", 50), Tick("3", 100))
    assert [tick.text for tick in chart.y_ticks] == ["0", "0.5", "1"]


def test_a_gap_where_a_value_is_no_number() -> None:
    chart = line_chart([Line("mean", "mean", (0.0, 1.0, math.nan, 1.0, 2.0))])
    assert chart is not None
    assert chart.lines[0].path.count("M") == 2


@pytest.mark.parametrize("values", [(), (1.0,), (math.nan, math.nan, 1.0)])
def test_too_few_points_make_no_chart(values: tuple[float, ...]) -> None:
    assert line_chart([Line("mean", "mean", values)]) is None


def test_all_zeros_have_a_chart() -> None:
    chart = line_chart([Line("mean", "mean", (0.0, 0.0))])
    assert chart is not None
    assert chart.lines[0].end_percent == 100
