from dataclasses import replace
from pathlib import Path

from tests.validation.made_report import made_report

from latentc.validation.bytes_view import budget_noun, bytes_views
from latentc.validation.report import AllotmentRow, BuildFacts, Execution, FrontRow, Report


def report(build: BuildFacts) -> Report:
    return Report("r", "onnx", "stable-diffusion", Execution(()), (), build=build)


def test_the_front_with_what_was_taken_and_measured(tmp_path: Path) -> None:
    made = made_report(tmp_path, 2)
    (view,) = bytes_views(made)
    measured = next(finding.value for finding in made.findings if finding.name == "trajectory.final_sqnr_db")
    assert view.taken == "Taken, of 60 linears: 46 in INT4 and 14 in INT8; 0.315 of their bytes in fp16."
    assert view.chart is not None
    assert view.chart.taken is not None
    assert view.chart.measured is not None
    assert view.chart.measured.text == f"{measured:.1f} dB measured"
    assert len(view.rows) == 31
    assert [cells[0] for cells in view.rows if cells[-1]] == ["0.315"]
    assert (view.component, view.note) == ("unet", "")


def test_a_choice_without_an_error_is_said_not_drawn() -> None:
    rows = [FrontRow("unet", 0.2 * n, 0.1 / n, 3, 0, 0, taken=False) for n in (1, 2, 3)]
    exact = FrontRow("unet", 1.0, 0.0, 0, 0, 3, taken=False)
    (view,) = bytes_views(report(BuildFacts(front=(*rows, exact, replace(exact, taken=True)))))
    assert view.taken == "Taken, of 3 linears: 3 left float; 1.000 of their bytes in fp16."
    assert view.note == "Not drawn: 1 choice has no foretold error, so no dB."
    (view,) = bytes_views(report(BuildFacts(front=(*rows, exact, replace(exact, ratio=0.9)))))
    assert (view.taken, view.note) == ("", "Not drawn: 2 choices have no foretold error, so no dB.")


def test_a_front_of_time_is_called_so() -> None:
    rows = [FrontRow("unet", 0.2 * n, 0.1 / n, 3, 0, 0, n == 2, "ort-mobile") for n in (1, 2, 3)]
    timed = report(BuildFacts(front=tuple(rows)))
    (view,) = bytes_views(timed)
    assert view.taken == (
        "Taken, of 3 linears: 3 in INT4; 0.400 of their time as floats, modelled on ort-mobile."
    )
    assert (view.axis, view.share) == (
        "modelled time of the linears on ort-mobile, floats = 1",
        "of float's time",
    )
    assert [budget_noun(one) for one in (timed, report(BuildFacts()))] == ["time", "bytes"]


def test_a_front_of_one_choice_has_no_chart() -> None:
    row = FrontRow("unet", 0.3, 0.1, 2, 1, 1, taken=True)
    (view,) = bytes_views(report(BuildFacts(front=(row,))))
    assert view.chart is None
    assert view.taken == (
        "Taken, of 4 linears: 2 in INT4, 1 in INT8 and 1 left float; 0.300 of their bytes in fp16."
    )


def test_linears_by_what_they_got() -> None:
    given = {
        "a.weight": "int4",
        "b": "int4+8",
        "c": "float",
        "d": "int8",
        "e": "int4+16",
        "f": "int4",
        "g": "new",
    }
    rows = tuple(AllotmentRow("unet", layer, allotment) for layer, allotment in given.items())
    (view,) = bytes_views(report(BuildFacts(allotments=rows)))
    assert view.allotments == (
        ("float", ("c",)),
        ("INT8", ("d",)),
        ("INT4 + rank 16", ("e",)),
        ("INT4 + rank 8", ("b",)),
        ("INT4", ("a", "f")),
        ("new", ("g",)),
    )
    assert (view.taken, view.chart, view.rows) == ("", None, ())


def test_components_apart_and_none_without_facts() -> None:
    rows = tuple(AllotmentRow(component, "a", "int4") for component in ("unet", "vae_decoder"))
    assert [view.component for view in bytes_views(report(BuildFacts(allotments=rows)))] == [
        "unet",
        "vae_decoder",
    ]
    assert bytes_views(report(BuildFacts())) == ()
