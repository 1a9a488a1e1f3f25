"""Process tree: how much memory a process and its children take, watched while they run."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 0.05


@dataclass(frozen=True)
class Took:
    """What a command took.

    Args:
        seconds: by the clock.
        processor_s: of all cores together.
        peak_rss_mib: resident memory of all its processes at the moment when that was largest.
        peak_pss_mib: the same with shared pages counted once.
        code: its exit status; None when it was killed by the watcher.
        output: what it said.
    """

    seconds: float
    processor_s: float
    peak_rss_mib: float
    peak_pss_mib: float
    code: int | None
    output: str


def watched(command: Sequence[str], kill_when: Callable[[], bool] = lambda: False) -> Took:
    """Run ``command``, look at its memory twenty times a second, and kill it when it is to be killed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    rss = pss = 0
    ticks = 0
    while process.poll() is None:
        family = _family(process.pid)
        # of one process alone the kernel keeps the most that it took between two looks
        field = "VmRSS" if len(family) > 1 else "VmHWM"
        rss = max(rss, sum(_field(one, "status", field) for one in family))
        if ticks % 10 == 0:  # the kernel walks all pages for it
            pss = max(pss, sum(_field(one, "smaps_rollup", "Pss") for one in family))
        ticks += 1
        if kill_when():
            process.kill()
        time.sleep(_TICK_S)
    output = process.communicate()[0]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    killed = process.returncode == -9
    return Took(
        time.monotonic() - began_s,
        worked_s,
        rss / 1024,
        pss / 1024,
        None if killed else process.returncode,
        output,
    )


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # gone meanwhile
    return found


def _field(pid: int, file: str, name: str) -> int:
    """KiB of a line in a process's file; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
