from dataclasses import replace

import pytest

from latentc.validation.finding import Finding
from latentc.validation.front_table import (
    cells_of,
    each_once,
    front_tables,
    measured_db,
    spread_evenly,
)
from latentc.validation.metric import Direction
from latentc.validation.report import BuildFacts, Execution, FrontRow, Report


def row(ratio: float, taken: bool = False, component: str = "unet") -> FrontRow:
    return FrontRow(component, ratio, 0.1 / ratio, 3, 2, 1, taken)


def report(front: tuple[FrontRow, ...], value: float | None = None, target: str = "onnx") -> Report:
    finding = Finding("trajectory", "final_sqnr_db", value, None, "dB", Direction.AT_LEAST)
    return Report("r", target, "stable-diffusion", Execution(()), (finding,), build=BuildFacts(front=front))


def test_cells() -> None:
    assert cells_of(FrontRow("unet", 0.29996, 0.0265, 45, 15, 0, taken=True), "30.9 dB") == (
        "0.300", "31.5 dB", "45", "15", "0", "taken, 30.9 dB measured"
    )  # fmt: skip
    assert cells_of(FrontRow("unet", 1.0, 0.0, 0, 0, 60, taken=True))[1::4] == ("no loss", "taken")
    assert cells_of(FrontRow("unet", 1.0, float("nan"), 0, 0, 60, taken=False))[1::4] == ("unknown", "")


def test_few_lines_evenly_by_bytes() -> None:
    front = tuple(row(0.25 + n / 1000) for n in range(100)) + tuple(row(0.5 + n / 10) for n in range(6))
    ratios = [one.ratio for one in spread_evenly(front)]
    assert ratios == pytest.approx([0.25, 0.349, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    with_taken = spread_evenly((*front, row(0.6501, taken=True)))
    assert len(with_taken) == 9
    assert [one.ratio for one in with_taken if one.taken] == [0.6501]


def test_neighbours_of_the_taken_one_are_left_out() -> None:
    front = (*(row(n / 70) for n in range(21, 71)), row(49 / 70, taken=True), row(0.7001))
    ratios = [one.ratio for one in spread_evenly(front)]
    assert len(ratios) == 9
    assert [ratio for ratio in ratios if abs(ratio - 0.7) < 0.02] == [49 / 70]


@pytest.mark.parametrize("front", [(row(0.3, taken=True),), (row(0.3), row(0.3, taken=True)), (row(0.3),)])
def test_a_front_of_one_choice(front: tuple[FrontRow, ...]) -> None:
    assert [one.ratio for one in spread_evenly(front)] == [0.3]


def test_the_taken_one_is_not_told_twice() -> None:
    taken = row(0.3, taken=True)
    assert each_once((row(0.3), row(0.2), taken)) == (row(0.2), taken)


def test_a_front_of_time_says_whose() -> None:
    front = (row(0.25), row(0.5), row(0.25, taken=True))
    timed = tuple(replace(one, device="ort-mobile") for one in front)
    of_bytes, of_time = front_tables({"onnx": report(front), "rtx": report(timed)})
    assert (of_bytes.title, of_bytes.head[0]) == (
        "unet: bytes of its linears against what the final latents keep",
        "of fp16",
    )
    assert (of_time.title, of_time.head[0]) == (
        "unet: modelled time of its linears on ort-mobile against what the final latents keep",
        "of float's time",
    )


def test_targets_with_one_front_share_a_table() -> None:
    front = (row(0.25), row(0.5), row(0.25, taken=True))
    reports = {"onnx": report(front, 30.94), "rtx": report(front, 31.0), "jetson": report(front[:1])}
    shared, other = front_tables(reports)
    assert shared.title == "unet: bytes of its linears against what the final latents keep"
    assert [cells[0] for cells in shared.rows] == ["0.250", "0.500"]
    assert shared.rows[0][-1] == "taken, 30.9 dB (onnx), 31.0 dB (rtx) measured"
    assert [len(cells) for cells in shared.rows] == [len(shared.head)] * 2
    assert len(other.rows) == 1
    assert front_tables({"onnx": report(front, 30.94)})[0].rows[0][-1] == "taken, 30.9 dB measured"
    assert front_tables({"onnx": report(())}) == ()


def test_lines_fit_a_small_terminal() -> None:
    front = (row(0.25), row(0.5), row(0.25, taken=True))
    (table,) = front_tables({"onnx": report(front, 30.94)})
    widths = [max(len(cells[n]) for cells in (table.head, *table.rows)) for n in range(len(table.head))]
    assert sum(widths) + 2 * (len(widths) - 1) < 80
    assert len(table.title) < 80


@pytest.mark.parametrize("value", [None, float("nan")])
def test_nothing_measured(value: float | None) -> None:
    assert measured_db(report((), value), "unet") is None


def test_only_the_denoiser_moves_the_latents() -> None:
    assert measured_db(report((), 30.0), "unet") == 30.0
    assert measured_db(report((), 30.0), "text_encoder") is None
    assert measured_db(replace(report((), 30.0), findings=()), "unet") is None
