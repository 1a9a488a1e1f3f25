"""A resumable stage of a tiny model, stopped on the way: kill -9 of this process, or a disk that fills.

python tests/compiler/stopped_stage.py kill MODEL STORE calibrate|sensitivity
python tests/compiler/stopped_stage.py fill MODEL STORE

A stage is stopped when it first says something that begins with its words in STOPS. With ``kill`` that is the
end. With ``fill`` the disk of STORE is filled to the last byte, made free when the stage has failed, and the
stage is run again, one kind after the other; what was said is written as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from latentc.compiler import batches
from latentc.compiler.model_folder import open_model
from latentc.compiler.plan import Plan
from latentc.compiler.run import run_plan
from latentc.compiler.sampling_options import SamplingOptions
from latentc.compiler.stage import ResumableStage, Step
from latentc.compiler.stages.calibrate import Calibrate
from latentc.compiler.stages.sensitivity import Sensitivity
from latentc.compiler.store import Artifact, Store
from latentc.errors import ResourceError

PROMPTS = ("a red circle", "a blue square", "a green triangle", "a small circle", "a large square")

STOPS = {"calibrate": "drawing prompts 3…4", "sensitivity": "gradient 3 of 4"}
"""What each stage says in the middle of a unit, when others are finished; of a batch, between two steps."""

TOGETHER = 2
"""latentc.compiler.batches.MOST_TOGETHER, so that few prompts are several batches."""


@dataclass
class Journal:
    """An observer that remembers what was said, and can do something when it hears ``words``."""

    words: str = ""
    action: Callable[[], None] | None = None
    said: list[str] = field(default_factory=list)
    fractions: list[float] = field(default_factory=list)
    whys: list[str] = field(default_factory=list)

    def started(self, label: str, number: int, total: int, why: str, seconds_left: float | None) -> None:
        """Remember why."""
        self.whys.append(why)

    def progressed(self, fraction: float, words: str) -> None:
        """Remember, and act the first time."""
        self.said.append(words)
        self.fractions.append(fraction)
        if self.action is not None and words.startswith(self.words):
            action, self.action = self.action, None
            action()

    def finished(self, label: str, duration_s: float, cached: bool) -> None:
        """Nothing."""


def stage_of(kind: str, model: Path) -> ResumableStage:
    """Calibrate: batches of 2, 2 and 1. Sensitivity: a gradient after the other."""
    steps = {"calibrate": 2, "sensitivity": 1}[kind]
    sampling = SamplingOptions(model, open_model(model).digest, (), "ddim", steps, 1.0, 32, 32)
    if kind == "sensitivity":
        return Sensitivity("stable-diffusion", sampling, PROMPTS[:1], (7,))
    return Calibrate("stable-diffusion", sampling, PROMPTS, (1, 2, 3, 4, 5), samples=4, rows=600)


def step_of(kind: str, model: Path) -> Step:
    """The stage as the only step of a plan."""
    return Step(kind, stage_of(kind, model), {})


def made(kind: str, model: Path, store: Path, journal: Journal) -> Artifact:
    """Run it."""
    step = step_of(kind, model)
    return run_plan(Plan("stopped", (step,)), Store(store), journal)[step.label]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of ``folder``."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def units_of(store: Path) -> list[str]:
    """Names of the finished units in ``store``."""
    return sorted(path.name for path in (store / "partial").glob("*/units/*"))


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill(file: Path) -> None:
    size_bytes = 2**20
    with file.open("wb", buffering=0) as filler:
        while size_bytes:
            try:
                size_bytes = filler.write(bytes(size_bytes))
            except OSError:
                size_bytes //= 2


def _filled(kind: str, model: Path, store: Path) -> dict[str, object]:
    filler = store / "filler"
    first, second = Journal(STOPS[kind], lambda: _fill(filler)), Journal()
    message = ""
    try:
        made(kind, model, store, first)
    except ResourceError as error:
        message = str(error)
    kept = units_of(store)
    filler.unlink()
    again = contents(made(kind, model, store, second).path)
    return {
        "message": message,
        "kept": kept,
        "said": second.said,
        "why": second.whys[0],
        "left": units_of(store),
        "files": {name: data.hex() for name, data in again.items()},
    }


if __name__ == "__main__":
    batches.MOST_TOGETHER = TOGETHER
    how, root, place, *kinds = sys.argv[1:]
    if how == "kill":
        made(kinds[0], Path(root), Path(place), Journal(STOPS[kinds[0]], _kill))
    else:
        sys.stdout.write(json.dumps({kind: _filled(kind, Path(root), Path(place)) for kind in STOPS}))
