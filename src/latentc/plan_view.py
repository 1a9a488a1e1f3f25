"""Plan view: a plan with what was foretold of it, for a terminal of 60 columns and more, and as JSON."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from latentc.compiler.forecast.prediction import HERE
from latentc.terminal import duration_text, say, say_table, size_text

if TYPE_CHECKING:
    from latentc.compiler.forecast.prediction import Prediction
    from latentc.compiler.plan_states import PlanStates
    from latentc.compiler.run import StepState
    from latentc.runtime.manifest import Json


def plan_to_json(plan: PlanStates, prediction: Prediction) -> dict[str, Json]:
    """Everything that is known, for scripts."""
    return {
        "unread": plan.unread,
        "steps": [
            {
                "step": state.step.label,
                "digest": state.step.digest,
                "cached": state.cached,
                "why": state.why,
                "expected_s": state.expected_s,
                "finished": state.finished,
                "foretold": dict(asdict(stage)),
            }
            for state, stage in zip(plan.states, prediction.stages, strict=True)
        ],
        **{name: value for name, value in prediction.to_json().items() if name != "stages"},
    }


def say_plan(plan: PlanStates, prediction: Prediction) -> None:
    """Write the steps, the bundles and the devices, each as a table."""
    _say_steps(plan.states, prediction)
    if plan.unread:
        _say_wrapped(f"{plan.unread}: which steps the store has was not looked up")
    say()
    _say_bundles(prediction)
    say()
    _say_devices(prediction)


def _say_steps(states: Sequence[StepState], prediction: Prediction) -> None:
    rows, seconds = [], 0.0
    peak, disk = 0, 0
    for state, stage in zip(states, prediction.stages, strict=True):
        if state.cached:
            rows.append(["cached", "", state.step.label, ""])
            continue
        known_s = state.left_s
        seconds += stage.seconds if known_s is None else known_s
        peak, disk = max(peak, stage.peak_bytes), disk + stage.disk_bytes
        about = f"~{duration_text(stage.seconds)}" if known_s is None else duration_text(known_s)
        rows.append([about, size_text(stage.peak_bytes), state.step.label, state.why])
    say_table(["time", "memory", "step", "why"], rows)
    to_run = sum(not state.cached for state in states)
    if not to_run:
        say(f"0 of {len(states)} steps to run")
        return
    _say_wrapped(
        f"{to_run} of {len(states)} steps to run: about {duration_text(seconds)}, at most {size_text(peak)} "
        f"of memory (this machine has {size_text(prediction.machine.memory_bytes)}), "
        f"{size_text(disk)} of disk"
    )


def _say_bundles(prediction: Prediction) -> None:
    names = list(prediction.bundles[0].components)
    rows = [
        [name, *(size_text(bundle.components[name].total) for bundle in prediction.bundles)] for name in names
    ]
    rows.append(["reference", *(size_text(bundle.reference) for bundle in prediction.bundles)])
    rows.append(["all", *(size_text(bundle.total) for bundle in prediction.bundles)])
    say_table(["bundle", *(bundle.target for bundle in prediction.bundles)], rows)


def _say_devices(prediction: Prediction) -> None:
    speeds = {one.device: one for one in prediction.speeds}
    rows = []
    for name, here in speeds.items():
        if name.startswith(HERE):
            rows.append([name, "", _short(here.step_s), _short(here.picture_s), ""])
    for one in prediction.fits:
        speed = speeds.get(one.target)
        step, picture = ("", "") if speed is None else (_short(speed.step_s), _short(speed.picture_s))
        needs = f"{one.memory.needed / 2**30:.1f} of {one.has_bytes / 2**30:.1f} GiB"
        rows.append([one.target, needs, step, picture, "yes" if one.fits else "NO"])
    say_table(["device", "needs", "step", "picture", "fits"], rows)
    for line in _advice(prediction):
        _say_wrapped(line)
    if any(one.target.startswith("jetson") for one in prediction.fits):
        _say_wrapped("Jetson: modelled from datasheets, nothing was measured on a board.")


def _advice(prediction: Prediction) -> Iterator[str]:
    """One line for each way out, with the devices that it helps."""
    helped: dict[str, list[str]] = {}
    for one in prediction.fits:
        if not one.fits:
            helped.setdefault(one.advice, []).append(one.target)
    for advice, targets in helped.items():
        devices = ", ".join(targets)
        yield f"{devices}: would fit with {advice}" if advice else f"{devices}: no simple change would fit"


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration_text(seconds)


def _say_wrapped(text: str) -> None:
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 10_000
    for line in textwrap.wrap(text, max(width, 20), subsequent_indent="  ", break_on_hyphens=False):
        say(line)
