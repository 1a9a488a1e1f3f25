"""Plan view: what a person sees of a plan, on a narrow terminal too."""

import json

import pytest
from tests.compiler import foretold

from latentc.compiler.forecast.prediction import Prediction, predict
from latentc.compiler.plan_states import PlanStates, plan_states
from latentc.plan_view import plan_to_json, say_plan


@pytest.fixture(scope="module")
def planned() -> tuple[PlanStates, Prediction]:
    plan = plan_states(foretold.recipe(), (), foretold.store())
    labels = [state.step.label for state in plan.states]
    store = foretold.store()
    return plan, predict(foretold.recipe(), plan.model, plan.targets, labels, store, measured=False)


def test_three_tables(planned: tuple[PlanStates, Prediction], capsys: pytest.CaptureFixture[str]) -> None:
    say_plan(*planned)
    text = capsys.readouterr().out
    steps, bundles, devices = text.split("\n\n")
    assert steps.splitlines()[0].split() == ["time", "memory", "step", "why"]
    assert f"{len(planned[0].states)} of {len(planned[0].states)} steps to run: about" in steps
    assert "the model's weights are not there: which steps the store has was not looked up" in steps
    assert bundles.splitlines()[0].split() == ["bundle", "ort-mobile", "jetson-orin-nano-8gb"]
    assert devices.splitlines()[1].startswith("this CPU")
    assert devices.count("yes") == 7
    assert devices.rstrip().endswith("nothing was measured on a board.")


@pytest.mark.parametrize("columns", [60, 80])
def test_no_line_is_wider_than_the_terminal(
    planned: tuple[PlanStates, Prediction],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    say_plan(*planned)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    devices = lines[next(place for place, line in enumerate(lines) if line.startswith("device")) :]
    assert not any("…" in line for line in devices)


def test_all_of_it_as_json(planned: tuple[PlanStates, Prediction]) -> None:
    found = json.loads(json.dumps(plan_to_json(*planned)))
    assert {"unread", "steps", "bundles", "devices", "speeds", "machine"} == set(found)
    assert set(found["steps"][0]["foretold"]) == {"label", "seconds", "peak_bytes", "disk_bytes"}
