"""A file that was read is known until anything about it changes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from latentc.compiler.known_files import KnownFiles
from latentc.errors import ModelError


class Reader:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"digest {self.count}"


def settled(path: Path, content: str, age_s: float = 60) -> Path:
    path.write_text(content)
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def test_a_file_is_read_once(tmp_path: Path) -> None:
    file, read = settled(tmp_path / "weights", "a"), Reader()
    for _ in range(2):
        assert KnownFiles(tmp_path / "known.json").sha256(file, read) == "digest 1"
    assert KnownFiles(tmp_path / "known.json").sha256(settled(file, "b", 30), read) == "digest 2"
    other = settled(tmp_path / "other", "a")
    assert KnownFiles(tmp_path / "known.json").sha256(other, read) == "digest 3"


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path) -> None:
    file, read = settled(tmp_path / "weights", "a", 0), Reader()
    known = KnownFiles(tmp_path / "known.json")
    assert [known.sha256(file, read), known.sha256(file, read)] == ["digest 1", "digest 2"]


def test_without_a_place_nothing_is_kept(tmp_path: Path) -> None:
    file, read = settled(tmp_path / "weights", "a"), Reader()
    assert [KnownFiles().sha256(file, read) for _ in range(2)] == ["digest 1", "digest 2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 2, "sha256": {}}', '{"format": 1}'])
def test_a_damaged_table_is_no_table(tmp_path: Path, damage: str) -> None:
    (tmp_path / "known.json").write_text(damage)
    file, read = settled(tmp_path / "weights", "a"), Reader()
    assert KnownFiles(tmp_path / "known.json").sha256(file, read) == "digest 1"
    assert KnownFiles(tmp_path / "known.json").sha256(file, read) == "digest 1"


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    file = settled(tmp_path / "weights", "a")

    def refuse() -> str:
        raise ModelError(str(file), "holds NaN")

    for _ in range(2):
        with pytest.raises(ModelError):
            KnownFiles(tmp_path / "known.json").sha256(file, refuse)
