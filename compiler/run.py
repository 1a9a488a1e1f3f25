"""Run a plan: what is in the store is taken from it, everything else is made and published, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from latentc.compiler.explain import reason_stale
from latentc.compiler.finished_units import share_finished
from latentc.compiler.plan import Plan
from latentc.compiler.returned_memory import returned_memory
from latentc.compiler.stage import ResumableStage, Step
from latentc.compiler.store import Artifact, Store, disk_error, is_disk_error
from latentc.errors import ResourceError
from latentc.runtime.manifest import Json


class Observer(Protocol):
    """Told how a run goes on; draws a progress line, or prints, or does nothing."""

    def started(self, label: str, number: int, total: int, why: str, seconds_left: float | None) -> None:
        """A step begins; ``seconds_left`` estimates the rest of the run, None when nothing is known."""

    def progressed(self, fraction: float, words: str) -> None:
        """The step has done ``fraction`` (0…1) of its work and now does ``words``."""

    def finished(self, label: str, duration_s: float, cached: bool) -> None:
        """A step is done, or was in the store."""


@dataclass(frozen=True)
class StepState:
    """A step of a plan as the store sees it.

    Args:
        step: which.
        cached: it is there.
        why: what makes it stale, when it is not.
        expected_s: seconds it took the last time; None when it never ran.
        finished: the share (0…1) of a stale step that was done before it was stopped, and is kept.
    """

    step: Step
    cached: bool
    why: str
    expected_s: float | None
    finished: float = 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds that running it will take, as far as known."""
        if self.cached:
            return 0.0
        return None if self.expected_s is None else self.expected_s * (1 - self.finished)


def states_of(plan: Plan, store: Store) -> tuple[StepState, ...]:
    """What running ``plan`` would do, step by step, in order."""
    last = store.last_plan(plan.name)
    states = []
    for step in plan.steps:
        before = last.get(step.label)
        expected_s = before.get("seconds") if before else None
        damage = store.damage(step.digest)
        if damage is not None:
            why, cached = f"damaged: {damage.file} {damage.reason}", False
        elif store.contains(step.digest):
            why, cached = "", True
        else:
            before_key = before.get("key") if before else None
            why, cached = reason_stale(step.key, before_key if isinstance(before_key, dict) else None), False
        finished = 0.0 if cached else share_finished(store.partial(step.digest).units)
        if finished:
            why += f"; {finished:.0%} of it is done"
        expected_s = expected_s if isinstance(expected_s, float) else None
        states.append(StepState(step, cached, why, expected_s, finished))
    return tuple(states)


def run_plan(plan: Plan, store: Store, observer: Observer) -> Mapping[str, Artifact]:
    """Make everything ``plan`` asks for that is not in ``store``; the artifacts by step label.

    Raises:
        LatentcError: whatever a stage raises; finished steps stay, so running again goes on there.
        ResourceError: out of memory or disk.
    """
    states = states_of(plan, store)
    memory: dict[str, dict[str, Json]] = store.last_plan(plan.name)
    artifacts: dict[str, Artifact] = {}
    for number, state in enumerate(states, start=1):
        step = state.step
        artifact = store.find(step.digest)
        if artifact is None:
            left = [later.left_s for later in states[number - 1 :]]
            known = None if any(seconds is None for seconds in left) else sum(filter(None, left))
            observer.started(step.label, number, len(states), state.why, known)
            artifact, made = _make(step, artifacts, plan, store, observer)
            observer.finished(step.label, artifact.duration_s, cached=not made)
        else:
            observer.finished(step.label, artifact.duration_s, cached=True)
        artifacts[step.label] = artifact
        memory[step.label] = {"key": step.key, "seconds": artifact.duration_s}
    store.remember_plan(plan.name, memory)
    return artifacts


def _make(
    step: Step, artifacts: Mapping[str, Artifact], plan: Plan, store: Store, observer: Observer
) -> tuple[Artifact, bool]:
    """Make one artifact, unless another process does so while we wait for it."""
    inputs: dict[str, Path] = {name: artifacts[below.label].path for name, below in step.inputs.items()}
    stage = step.stage
    fix = "free space, then run the same command"
    try:
        with store.lock(step.digest):
            already = store.find(step.digest)
            if already is not None:
                return already, False
            if isinstance(stage, ResumableStage):
                fix += ": it goes on with what is finished"
                partial = store.open_partial(step.digest)
                units = partial.units
                return _published(
                    step,
                    partial.work,
                    store,
                    lambda out: stage.resume(inputs, out, units, observer.progressed),
                ), True
            with store.workspace() as work:
                (work / "content").mkdir()
                return _published(
                    step, work, store, lambda out: stage.run(inputs, out, observer.progressed)
                ), True
    except MemoryError as error:
        raise ResourceError(
            step.label, "ran out of memory", "use a machine with more, or a smaller model"
        ) from error
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise disk_error(step.label, store.root, error, fix) from error


def _published(step: Step, work: Path, store: Store, run: Callable[[Path], None]) -> Artifact:
    """What ``run`` makes of ``work/content``, in the store."""
    began_s = time.monotonic()
    with returned_memory():
        run(work / "content")
    return store.publish(step.digest, step.key, work, time.monotonic() - began_s)
