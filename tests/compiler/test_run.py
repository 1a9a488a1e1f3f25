import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from latentc.compiler.finished_units import FinishedUnits
from latentc.compiler.plan import Plan
from latentc.compiler.run import StepState, run_plan, states_of
from latentc.compiler.stage import Progress, ResumableStage, Stage, Step
from latentc.compiler.store import Store
from latentc.errors import ResourceError
from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class Join(Stage):
    """Writes its word after the words of its inputs; fails with ``failure`` when there is one."""

    name: ClassVar[str] = "join"
    version: ClassVar[int] = 1

    word: str
    failure: BaseException | None = None

    def options(self) -> dict[str, Json]:
        return {"word": self.word}

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        progress(0.5, "joining")
        if self.failure is not None:
            (out / "half").write_text("half")
            raise self.failure
        words = [(path / "words").read_text() for _, path in sorted(inputs.items())]
        (out / "words").write_text(" ".join([*words, self.word]))


@dataclass(frozen=True)
class Count(ResumableStage):
    """Keeps a unit a number; fails with ``failure`` before number ``stop``."""

    name: ClassVar[str] = "count"
    version: ClassVar[int] = 1

    stop: int = 4
    failure: BaseException | None = None

    def options(self) -> dict[str, Json]:
        return {}

    def resume(self, inputs: Mapping[str, Path], out: Path, units: Path, progress: Progress) -> None:
        progress(0.5, "joining")
        finished = FinishedUnits(units, 4)
        for number in range(4):
            if finished.read(number) is None:
                if number == self.stop and self.failure is not None:
                    raise self.failure
                finished.write(number, {"number": np.array(number)})
        (out / "words").write_text("counted")


@dataclass
class Journal:
    """An observer that remembers."""

    made: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    whys: list[str] = field(default_factory=list)
    left_s: list[float | None] = field(default_factory=list)

    def started(self, label: str, number: int, total: int, why: str, seconds_left: float | None) -> None:
        self.whys.append(f"{label}: {why}")
        self.left_s.append(seconds_left)

    def progressed(self, fraction: float, words: str) -> None:
        assert (fraction, words) == (0.5, "joining")

    def finished(self, label: str, duration_s: float, cached: bool) -> None:
        (self.cached if cached else self.made).append(label)


def plan_of(first: str = "a", last: str = "c", failure: BaseException | None = None) -> Plan:
    one = Step("one", Join(first), {})
    two = Step("two", Join("b"), {"below": one})
    three = Step("three", Join(last, failure), {"left": one, "right": two})
    return Plan("test", (one, two, three))


def test_runs_in_order_and_then_from_the_store(tmp_path: Path) -> None:
    first, second = Journal(), Journal()
    artifacts = run_plan(plan_of(), Store(tmp_path), first)
    assert (artifacts["three"].path / "words").read_text() == "a a b c"
    assert (first.made, first.cached) == (["one", "two", "three"], [])
    run_plan(plan_of(), Store(tmp_path), second)
    assert (second.made, second.cached) == ([], ["one", "two", "three"])


def test_a_change_runs_only_what_depends_on_it_and_says_why(tmp_path: Path) -> None:
    run_plan(plan_of(), Store(tmp_path), Journal())
    last, first = Journal(), Journal()
    run_plan(plan_of(last="d"), Store(tmp_path), last)
    assert (last.made, last.whys) == (["three"], ["three: word: c → d"])
    run_plan(plan_of(first="x", last="d"), Store(tmp_path), first)
    assert first.whys == [
        "one: word: a → x",
        "two: its input changed: below",
        "three: its input changed: left, right",
    ]
    assert all(seconds is not None for seconds in first.left_s)


def test_a_failure_keeps_what_was_finished(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        run_plan(plan_of(failure=RuntimeError("stop")), Store(tmp_path), Journal())
    again = Journal()
    run_plan(plan_of(), Store(tmp_path), again)
    assert (again.made, again.cached) == (["three"], ["one", "two"])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_damaged_artifact_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifacts = run_plan(plan_of(), store, Journal())
    words = artifacts["two"].path / "words"
    words.chmod(0o644)
    words.write_text("lies")
    state = states_of(plan_of(), store)[1]
    assert (state.cached, state.why) == (False, "damaged: words is not what was written")
    again = Journal()
    run_plan(plan_of(), store, again)
    assert (again.made, again.cached) == (["two"], ["one", "three"])


def test_a_full_disk_and_too_little_memory_say_so(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ResourceError, match=r"three: the disk is full \(\d+ MiB free\)"):
        run_plan(plan_of(failure=full), Store(tmp_path), Journal())
    with pytest.raises(ResourceError, match="three: ran out of memory"):
        run_plan(plan_of(failure=MemoryError()), Store(tmp_path), Journal())


def test_other_failures_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_plan(plan_of(failure=FileNotFoundError(errno.ENOENT, "x")), Store(tmp_path), Journal())


def counting(stop: int = 4, failure: BaseException | None = None) -> Plan:
    return Plan("count", (Step("count", Count(stop, failure), {}), Step("join", Join("a"), {})))


def test_finished_units_survive_a_full_disk_and_are_told_of(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ResourceError, match=r"^count: the disk is full") as raised:
        run_plan(counting(3, full), Store(tmp_path), Journal())
    assert str(raised.value).endswith(
        "fix: free space, then run the same command: it goes on with what is finished"
    )
    state = states_of(counting(), Store(tmp_path))[0]
    assert (state.finished, state.why) == (0.75, "not built yet; 75% of it is done")
    with pytest.raises(RuntimeError, match="stop"):  # fails at the first unit that is missing
        run_plan(counting(3, RuntimeError("stop")), Store(tmp_path), Journal())
    artifacts = run_plan(counting(0, RuntimeError("the first is done again")), Store(tmp_path), Journal())
    assert (artifacts["count"].path / "words").read_text() == "counted"
    assert list((tmp_path / "partial").iterdir()) == []


def test_the_time_left_is_that_of_what_is_left() -> None:
    step = counting().steps[0]
    assert StepState(step, False, "", 8.0, 0.75).left_s == 2.0
    assert StepState(step, False, "", None, 0.75).left_s is None
    assert StepState(step, True, "", 8.0).left_s == 0.0
