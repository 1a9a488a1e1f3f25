"""Layers on bad days: stopped anywhere, with a damaged file, without room. The bytes are always the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.passes.graphs import model_of

from latentc.compiler.budget import Budget
from latentc.compiler.finished_units import FinishedUnits
from latentc.compiler.write_layers import write_layers
from latentc.errors import ResourceError
from latentc.passes.base import LossLedger, PassContext
from latentc.passes.layer_units import LayerUnit
from latentc.passes.model_writer import DATA_FILE, ModelWriter, Written
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank

LAYERS = """g (float[B,128] x) => (float[B,128] y) <float[128,128] a, float[128,128] b, float[128,128] c,
        float[128,128] d> {
    p = MatMul (x, a)
    q = MatMul (p, b)
    r = MatMul (q, c)
    y = MatMul (r, d) }"""


class Stop(Exception):
    """Stands for whatever stops a build."""


def stop() -> None:
    """What happens where a run is to end; a child that is to be killed puts something else here."""
    raise Stop


@pytest.fixture(autouse=True)
def _one_layer_a_unit() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentc.passes.layer_units.SMALL_BYTES", 0)
        yield


def run(place: Path, *, workers: int = 2, stop_after: int | None = None) -> LossLedger:
    """Write the layers into ``place``; raises Stop when ``stop_after`` units are done."""
    for name in ("content", "units"):
        (place / name).mkdir(parents=True, exist_ok=True)
    context = PassContext()
    model = model_of(LAYERS)
    for step in (SplitLowRank(rank=4, max_ratio=1.0, calibrated=False), QuantizeInt4()):
        model = step(model, context).model
    writer = ModelWriter(model, place / "content")
    done = 0

    def progress(fraction: float, words: str) -> None:
        nonlocal done
        done += 1
        assert 0 < fraction <= 1
        if done == stop_after:
            stop()

    finished = FinishedUnits(place / "units", len(writer.units))
    write_layers(writer, place / "content", context.ledger, finished, Budget(workers), progress)
    return context.ledger


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((place / "content").iterdir())}


def losses(ledger: LossLedger) -> dict[str, float]:
    return {loss.layer: loss.relative_error for loss in ledger.losses}


def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The units that are computed from now on, by name."""
    names: list[str] = []
    write = ModelWriter.write

    def remember(self: ModelWriter, unit: LayerUnit) -> Written:
        names.append(unit.name)
        return write(self, unit)

    monkeypatch.setattr(ModelWriter, "write", remember)
    return names


def test_workers_do_not_show(tmp_path: Path) -> None:
    ledgers = [run(tmp_path / str(workers), workers=workers) for workers in (1, 2, 5)]
    assert files(tmp_path / "1") == files(tmp_path / "2") == files(tmp_path / "5")
    assert losses(ledgers[0]) == losses(ledgers[1]) == losses(ledgers[2])
    assert set(losses(ledgers[0])) == set("abcd")


def test_stopped_five_times_it_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = run(tmp_path / "wanted")
    names = written(monkeypatch)
    for count in range(1, 5):
        with pytest.raises(Stop):
            run(tmp_path / "stopped", workers=1, stop_after=count)
    again = run(tmp_path / "stopped", workers=1)
    assert files(tmp_path / "stopped") == files(tmp_path / "wanted")
    assert losses(again) == losses(wanted)
    # each is computed once, but those that a worker had begun when another unit's end stopped the run
    assert len(names) < 2 * len(set(names))


KILLED = """
import os, signal, sys
from pathlib import Path
from latentc.passes import layer_units
from tests.compiler import test_write_layers as layers
layer_units.SMALL_BYTES = 0
layers.stop = lambda: os.kill(os.getpid(), signal.SIGKILL)
layers.run(Path(sys.argv[1]), stop_after=int(sys.argv[2]))
"""


def test_killed_it_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    run(tmp_path / "wanted")
    for count in ("1", "2"):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), count]
        assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert any((tmp_path / "killed" / "units").iterdir())
    run(tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "wanted")


def test_a_unit_whose_bytes_are_not_there_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "wanted")
    with pytest.raises(Stop):
        run(tmp_path / "stopped", workers=1, stop_after=3)
    data = tmp_path / "stopped" / "content" / DATA_FILE
    content = bytearray(data.read_bytes())
    content[100] ^= 1  # in the first layer's codes
    data.write_bytes(content)
    names = written(monkeypatch)
    run(tmp_path / "stopped")
    assert len(names) == len(set(names))
    assert any(name.startswith("a.") for name in names)
    assert files(tmp_path / "stopped") == files(tmp_path / "wanted")


def test_records_without_a_data_file_count_for_nothing(tmp_path: Path) -> None:
    run(tmp_path / "wanted")
    with pytest.raises(Stop):
        run(tmp_path / "stopped", stop_after=2)
    (tmp_path / "stopped" / "content" / DATA_FILE).unlink()
    run(tmp_path / "stopped")
    assert files(tmp_path / "stopped") == files(tmp_path / "wanted")


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 10))
    with pytest.raises(ResourceError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/content: the disk is too small: 1 MiB more will be written, 0 MiB are free\n"
        "fix: free space, or choose another disk with --store"
    )
    assert not (tmp_path / "content" / DATA_FILE).exists()


def test_a_disk_that_fills_midway_keeps_what_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "wanted")
    pwrite, calls = os.pwrite, 0

    def fill(descriptor: int, content: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, content, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fill)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path / "full", workers=1)
    assert any((tmp_path / "full" / "units").iterdir())
    run(tmp_path / "full")
    assert files(tmp_path / "full") == files(tmp_path / "wanted")


def test_layers_wait_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "wanted")
    running = most = 0
    write = ModelWriter.write

    def count(self: ModelWriter, unit: LayerUnit) -> Written:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return write(self, unit)
        finally:
            running -= 1

    monkeypatch.setattr(ModelWriter, "write", count)
    monkeypatch.setattr(Budget, "room_bytes", lambda self, where, largest_bytes: largest_bytes)
    run(tmp_path / "narrow", workers=4)
    assert most == 1
    assert files(tmp_path / "narrow") == files(tmp_path / "wanted")
