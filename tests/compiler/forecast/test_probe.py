"""Probe: every figure is of this machine, and it leaves nothing behind."""

from dataclasses import asdict
from pathlib import Path

import pytest

from latentc.compiler.forecast import probe as probing


def test_a_short_probe_measures_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_TRY_S", 0.0)
    monkeypatch.setattr(probing, "_FILE_BYTES", 2**24)
    found = asdict(probing.probe(tmp_path))
    assert all(value > 0 for value in found.values()), found
    assert list(tmp_path.iterdir()) == []
