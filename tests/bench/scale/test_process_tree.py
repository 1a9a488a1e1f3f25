"""A watched process tells what it took, its children's memory too, and ends when its time is up."""

from __future__ import annotations

import sys
import time

from tests.bench.scale.process_tree import watched

HOLD = "import time; held = b'x' * (80 << 20); time.sleep(1)"


def test_children_count() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}], check=True); print(7)"
    took = watched([sys.executable, "-c", child])
    assert (took.code, took.output) == (0, "7\n")
    assert 80 < took.peak_rss_mib < 200
    assert 0 < took.peak_pss_mib < took.peak_rss_mib + 1


def test_a_process_that_is_killed_has_no_code() -> None:
    began_s = time.monotonic()
    took = watched(
        [sys.executable, "-c", "import time; time.sleep(60)"], lambda: time.monotonic() > began_s + 0.5
    )
    assert took.code is None
    assert took.seconds < 30
