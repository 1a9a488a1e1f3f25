"""A unit is there whole, as it was written, or it is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentc.compiler.finished_units import FinishedUnits, Unit, share_finished


def test_a_unit_comes_back_as_it_was(tmp_path: Path) -> None:
    units = FinishedUnits(tmp_path, 4)
    given: Unit = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([2**53 + 1], np.int64)}
    units.write(2, given)
    found = FinishedUnits(tmp_path, 4).read(2)
    assert found is not None
    assert list(found) == ["b", "a"]  # their order is that of the result's files
    for name, array in given.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert (units.read(1), units.count(), share_finished(tmp_path)) == (None, 1, 0.25)


def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    units = FinishedUnits(tmp_path, 1)
    units.write(0, {"x": np.array(1.5)})
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    for place in range(len(sound)):
        for damaged in (sound[:place], sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :]):
            path.write_bytes(damaged)
            assert units.read(0) is None
            assert not path.exists()


def test_a_half_written_unit_is_none_and_swept(tmp_path: Path) -> None:
    (tmp_path / ".0001-of-0002.77.part").write_bytes(b"half")
    assert share_finished(tmp_path) == 0
    assert FinishedUnits(tmp_path, 2).read(1) is None
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_finished_where_nothing_was_begun(tmp_path: Path) -> None:
    assert share_finished(tmp_path / "none") == 0


def test_a_unit_that_cannot_be_written_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = FinishedUnits(tmp_path, 3)
    units.write(0, {"x": np.array(1)})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        units.write(1, {"x": np.array(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["0000-of-0003"]
