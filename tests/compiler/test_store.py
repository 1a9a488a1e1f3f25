import os
import shutil
from multiprocessing import get_context
from pathlib import Path

import pytest

from latentc.compiler.store import PARTIAL_KEPT_S, Store
from latentc.errors import InternalError, ResourceError
from latentc.runtime.manifest import Json

DIGEST = "ab" * 32
KEY: dict[str, Json] = {"stage": "test"}


def put(store: Store, text: str = "content", digest: str = DIGEST) -> None:
    with store.workspace() as work:
        (work / "content" / "deep").mkdir(parents=True)
        (work / "content" / "deep" / "file.txt").write_text(text)
        store.publish(digest, KEY, work, 1.5)


def test_what_is_published_is_found_again(tmp_path: Path) -> None:
    put(Store(tmp_path))
    artifact = Store(tmp_path).find(DIGEST)
    assert artifact is not None
    assert (artifact.path / "deep" / "file.txt").read_text() == "content"
    assert (artifact.key, artifact.duration_s) == (KEY, 1.5)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_unknown_digest_is_not_found(tmp_path: Path) -> None:
    assert Store(tmp_path).find(DIGEST) is None


def edited(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "extra", "record", "record-edited", "link"])
def test_damage_is_set_aside_and_never_served(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    put(store)
    entry = tmp_path / "objects" / DIGEST[:2] / DIGEST
    file = entry / "content" / "deep" / "file.txt"
    if damage == "flip":
        edited(file, b"bontent")
    elif damage == "truncate":
        edited(file, b"")
    elif damage == "delete":
        file.unlink()
    elif damage == "extra":
        (entry / "content" / "more").write_text("x")
    elif damage == "record":
        edited(entry / "record.json", b"{")
    elif damage == "record-edited":
        record = (entry / "record.json").read_text().replace('"stage": "test"', '"stage": "tost"')
        edited(entry / "record.json", record.encode())
    else:
        file.unlink()
        file.symlink_to("/etc/hostname")
    assert store.damage(DIGEST) is not None
    assert store.find(DIGEST) is None
    assert len(list((tmp_path / "bad").iterdir())) == 1
    put(store)
    assert store.find(DIGEST) is not None


def test_every_single_byte_flip_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store)
    entry = tmp_path / "objects" / DIGEST[:2] / DIGEST
    for path in (entry / "record.json", entry / "content" / "deep" / "file.txt"):
        sound = path.read_bytes()
        for position in range(len(sound)):
            edited(path, sound[:position] + bytes([sound[position] ^ 1]) + sound[position + 1 :])
            assert store.damage(DIGEST) is not None, f"{path.name} byte {position}"
        edited(path, sound)
    assert store.damage(DIGEST) is None


def test_a_stage_must_write_regular_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.workspace() as work:
        (work / "content").mkdir()
        with pytest.raises(InternalError, match="the stage wrote nothing"):
            store.publish(DIGEST, KEY, work, 0.0)
        (work / "content" / "link").symlink_to("/etc/hostname")
        with pytest.raises(InternalError, match="wrote a link into its artifact"):
            store.publish(DIGEST, KEY, work, 0.0)
    assert store.find(DIGEST) is None


def test_workspaces_of_dead_processes_are_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    child = get_context("spawn").Process(target=os.getpid)
    child.start()
    child.join()
    dead = store.root / "tmp" / f"{child.pid}-abc"
    mine = store.root / "tmp" / f"{os.getpid()}-abc"
    dead.mkdir()
    mine.mkdir()
    Store(tmp_path)
    assert (dead.exists(), mine.exists()) == (False, True)


def test_a_store_that_cannot_be_made_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be used as a store"):
        Store(tmp_path / "file")


def test_two_writers_of_one_digest_agree(tmp_path: Path) -> None:
    context = get_context("fork")  # spawn would import this file by a package name it does not have
    writers = [context.Process(target=put, args=(Store(tmp_path),)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert Store(tmp_path).find(DIGEST) is not None
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_last_plan_is_only_a_memory(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.last_plan("x") == {}
    store.remember_plan("x", {"a": KEY})
    assert store.last_plan("x") == {"a": KEY}
    (tmp_path / "plans" / "x.json").write_text("{")
    assert store.last_plan("x") == {}


def test_a_relative_store_is_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("store"))
    put(store)
    monkeypatch.chdir("/")
    assert store.find(DIGEST) is not None
    with store.workspace() as work:
        assert work.is_absolute()


def begun(store: Store, digest: str = DIGEST) -> Path:
    """A folder of unfinished work."""
    partial = store.open_partial(digest)
    (partial.units / "0000-of-0002").write_text("unit")
    (partial.work / "content" / "rows").write_text("rows")
    return partial.folder


def aged(folder: Path) -> None:
    for path in (folder, *folder.iterdir()):
        long_ago_s = path.stat().st_mtime - PARTIAL_KEPT_S - 60
        os.utime(path, (long_ago_s, long_ago_s))


def test_unfinished_work_is_found_again_and_gone_when_published(tmp_path: Path) -> None:
    folder = begun(Store(tmp_path))
    store = Store(tmp_path)
    assert folder.exists()
    partial = store.open_partial(DIGEST)
    assert (partial.units / "0000-of-0002").read_text() == "unit"
    artifact = store.publish(DIGEST, KEY, partial.work, 1.0)
    assert (artifact.path / "rows").read_text() == "rows"
    assert not folder.exists()


def test_unfinished_work_that_was_being_published_can_be_written_again(tmp_path: Path) -> None:
    folder = begun(Store(tmp_path))
    rows = folder / "work" / "content" / "rows"
    rows.chmod(0o444)
    (folder / "work" / "record.json").write_text("{")
    Store(tmp_path).open_partial(DIGEST)
    assert rows.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (folder / "work").iterdir()] == ["content"]


def test_unfinished_work_of_what_was_published_is_swept(tmp_path: Path) -> None:
    """A kill after the rename leaves the units."""
    store = Store(tmp_path)
    put(store)
    shutil.rmtree(begun(store) / "work")
    Store(tmp_path)
    assert list((tmp_path / "partial").iterdir()) == []


def test_old_unfinished_work_is_swept_unless_somebody_goes_on_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = begun(store)
    aged(folder)
    with store.lock(DIGEST):
        Store(tmp_path)
        assert folder.exists()
        store.open_partial(DIGEST)
    Store(tmp_path)
    assert folder.exists()
    aged(folder)
    Store(tmp_path)
    assert not folder.exists()
