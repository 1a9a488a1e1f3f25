"""Machine: measured once, again when it is another one, and again when asked."""

import json
from dataclasses import replace
from pathlib import Path

from latentc.compiler.forecast.machine import MACHINE_FILE, NOMINAL, Speeds, machine_of, memory_bytes


class Probe:
    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, folder: Path) -> Speeds:
        self.asked += 1
        return replace(NOMINAL, eigh_s=float(self.asked))


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    probe = Probe()
    first = machine_of(tmp_path, probe)
    assert machine_of(tmp_path, probe) == first
    assert probe.asked == 1
    assert machine_of(tmp_path, probe, again=True).speeds.eigh_s == 2
    assert machine_of(tmp_path, probe).speeds.eigh_s == 2


def test_another_machine_is_measured_again(tmp_path: Path) -> None:
    probe = Probe()
    machine_of(tmp_path, probe)
    file = tmp_path / MACHINE_FILE
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["identity"]["processor"] = "another"
    file.write_text(json.dumps(kept), encoding="utf-8")
    machine_of(tmp_path, probe)
    assert probe.asked == 2


def test_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / MACHINE_FILE).write_text('{"format": 1}', encoding="utf-8")
    probe = Probe()
    machine_of(tmp_path, probe)
    assert probe.asked == 1


def test_sizes_alone_need_no_measurement(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, None)
    assert machine.speeds is NOMINAL
    assert machine.memory_bytes == memory_bytes() > 2**28
    assert list(tmp_path.iterdir()) == []
