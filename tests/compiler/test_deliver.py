from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.runtime.small_bundle import write_small_bundle

from latentc.compiler import deliver
from latentc.compiler.deliver import install_bundle, install_report, require_place
from latentc.errors import UsageError
from latentc.runtime.bundle import verify_bundle

Tree = dict[str, bytes]


def tree(folder: Path) -> Tree:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_small_bundle(tmp_path / "artifact")
    for path in (tmp_path / "artifact").rglob("*"):
        if path.is_file():
            path.chmod(0o444)  # as the store keeps them
    return tmp_path / "artifact"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    write_small_bundle(tmp_path / "other")
    (tmp_path / "other" / "manifest.json").write_text(
        (tmp_path / "other" / "manifest.json").read_text().replace('"small"', '"changed"')
    )
    return tmp_path / "other"


def test_new_bundle(artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert install_bundle(artifact, out, "onnx") == out / "onnx"
    verify_bundle(out / "onnx")
    assert tree(out / "onnx") == tree(artifact)
    assert [path.name for path in out.iterdir()] == ["onnx"]
    assert os.access(out / "onnx" / "manifest.json", os.W_OK)


def test_same_bundle_stays_with_what_a_board_built(artifact: Path, tmp_path: Path) -> None:
    install_bundle(artifact, tmp_path / "out", "onnx")
    engine = tmp_path / "out" / "onnx" / "unet" / "model.engine"
    engine.write_bytes(b"built here")
    before = (tmp_path / "out" / "onnx" / "manifest.json").stat().st_mtime_ns
    install_bundle(artifact, tmp_path / "out", "onnx")
    assert engine.read_bytes() == b"built here"
    assert (tmp_path / "out" / "onnx" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("exchanges", [True, False])
def test_older_bundle_is_replaced(
    artifact: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(deliver, "_exchange", lambda one, two: False)
    install_bundle(other, tmp_path / "out", "onnx")
    install_bundle(artifact, tmp_path / "out", "onnx")
    assert tree(tmp_path / "out" / "onnx") == tree(artifact)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["onnx"]


def test_damaged_bundle_of_ours_is_replaced(artifact: Path, tmp_path: Path) -> None:
    install_bundle(artifact, tmp_path / "out", "onnx")
    (tmp_path / "out" / "onnx" / "unet" / "model.onnx").write_bytes(b"damage")
    install_bundle(artifact, tmp_path / "out", "onnx")
    verify_bundle(tmp_path / "out" / "onnx")


def test_empty_folder_is_taken(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "onnx").mkdir(parents=True)
    install_bundle(artifact, tmp_path / "out", "onnx")
    verify_bundle(tmp_path / "out" / "onnx")


def a_folder_of_pictures(final: Path) -> None:
    final.mkdir()
    (final / "holiday.png").write_bytes(b"picture")


def another_manifest(final: Path) -> None:
    final.mkdir()
    (final / "manifest.json").write_text('{"name": "an app of somebody else"}')


def a_file(final: Path) -> None:
    final.write_text("notes")


def a_link(final: Path) -> None:
    (final.parent / "elsewhere").mkdir()
    final.symlink_to(final.parent / "elsewhere")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (a_folder_of_pictures, "holds something that is no latentc bundle"),
        (another_manifest, "holds something that is no latentc bundle"),
        (a_file, "is a link or a file, a folder was expected"),
        (a_link, "is a link or a file, a folder was expected"),
    ],
)
def test_what_is_not_ours_stays(
    artifact: Path, tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    final = tmp_path / "out" / "onnx"
    final.parent.mkdir()
    make(final)
    before = tree(final.parent)
    for refuse in (
        lambda: install_bundle(artifact, tmp_path / "out", "onnx"),
        lambda: require_place(tmp_path / "out", "onnx"),
    ):
        with pytest.raises(UsageError) as caught:
            refuse()
        assert str(caught.value) == (
            f"--out: '{final}' {words}\nfix: choose another --out, or move what is there away"
        )
        assert caught.value.exit_code == 2
    assert tree(final.parent) == before


def test_out_that_is_a_file(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("notes")
    with pytest.raises(UsageError, match="is a file, a folder was expected"):
        install_bundle(artifact, tmp_path / "out", "onnx")
    assert (tmp_path / "out").read_text() == "notes"


def test_failed_copy_leaves_the_old_bundle_whole(
    artifact: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_bundle(other, tmp_path / "out", "onnx")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(deliver, "_sync_tree", full)
    with pytest.raises(OSError, match="No space left"):
        install_bundle(artifact, tmp_path / "out", "onnx")
    assert tree(tmp_path / "out" / "onnx") == tree(other)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["onnx"]


def test_leftovers_of_killed_processes_are_swept(artifact: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    out = tmp_path / "out"
    for pid in (gone.pid, os.getppid()):
        (out / f".latentc-onnx-{pid}").mkdir(parents=True)
    install_bundle(artifact, out, "onnx")
    assert sorted(path.name for path in out.iterdir()) == [f".latentc-onnx-{os.getppid()}", "onnx"]


def test_report_of_one_target(tmp_path: Path) -> None:
    made = tmp_path / "validate"
    made.mkdir()
    (made / "report.json").write_text('{"format": 1, "passed": true, "findings": []}')
    for _ in range(2):
        assert install_report({"onnx": made}, tmp_path) == tmp_path / "report"
        assert tree(tmp_path / "report") == tree(made)


def test_other_reports_stay(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.tex").write_text("words")
    with pytest.raises(UsageError, match="holds something that is no latentc report"):
        require_place(tmp_path, "onnx")
    with pytest.raises(UsageError, match="holds something that is no latentc report"):
        install_report({"onnx": tmp_path}, tmp_path)
    assert tree(tmp_path / "report") == {"thesis.tex": b"words"}
