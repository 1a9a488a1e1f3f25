"""Old bytes or new bytes, nothing between and nothing beside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from latentc.runtime.whole_file import whole_file


def test_the_new_bytes_appear_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with whole_file(path) as place:
        place.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_keeps_the_old_bytes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_half(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def write_half(path: Path) -> None:
    with whole_file(path) as place:
        place.write_text("half")
        raise OSError("disk full")


def test_half_written_files_lie_where_they_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with whole_file(tmp_path / "file", work=tmp_path / "work") as place:
        place.write_text("new")
        assert os.listdir(tmp_path) == ["work"]
    assert sorted(os.listdir(tmp_path)) == ["file", "work"]
    assert os.listdir(tmp_path / "work") == []


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "missing" / "file") as place:
        place.write_text("new")
