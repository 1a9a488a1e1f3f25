import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from latentc.compiler.plan import Plan
from latentc.compiler.run import run_plan, states_of
from latentc.compiler.stage import Progress, Stage, Step
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
