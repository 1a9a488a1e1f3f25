"""Store: finished artifacts by digest, whole or not at all, verified on every read.

    objects/<first 2>/<digest>/content/…   what the stage wrote
    objects/<first 2>/<digest>/record.json the key spelled out, and every file's size and SHA-256
    tmp/<pid>-<random>/                    work in progress; swept when its process is gone
    partial/<digest>/                      work of a resumable stage, kept when its process is gone
    bad/<digest>-<n>/                      what was found damaged, kept for a look
    locks/<digest>                         held while a digest is being made
    known-files.json                       SHA-256 of model files that were read (compiler/known_files.py)
    plans/<name>.json                      the keys of the last plan, to say why a step is stale

An artifact is published by fsync of its files and folders, a rename, and fsync of the parent. Its correctness
does not depend on the locks: two writers of one digest write the same bytes and the second finds it there.
Work in partial/ belongs to who holds the lock. It goes when its artifact is published, or when a store is
opened and nobody went on with it for PARTIAL_KEPT_S.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from latentc.errors import InternalError, ResourceError
from latentc.runtime.bundle import sha256_of_file
from latentc.runtime.manifest import Json
from latentc.runtime.whole_file import sync, whole_file

RECORD_FORMAT = 1

PARTIAL_KEPT_S = 14 * 24 * 3600.0
"""How long unfinished work waits to be gone on with: after two weeks the recipe has most likely changed."""


@dataclass(frozen=True)
class Artifact:
    """A finished, verified result: a read-only folder."""

    digest: str
    path: Path
    key: dict[str, Json]
    duration_s: float


@dataclass(frozen=True)
class Damage:
    """Why an entry is not what was written: the file, and what is wrong with it."""

    file: str
    reason: str


@dataclass(frozen=True)
class Partial:
    """Where the work of a resumable stage lies until it is published.

    Args:
        folder: of one digest.
    """

    folder: Path

    @property
    def work(self) -> Path:
        """What Store.publish takes; ``work/content`` is the stage's ``out``."""
        return self.folder / "work"

    @property
    def units(self) -> Path:
        """What is finished: latentc.compiler.finished_units."""
        return self.folder / "units"


class Store:
    """A folder of artifacts that many processes may use at once.

    Args:
        root: made when missing; must be on one file system.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()  # stages run children elsewhere
        try:
            for name in ("objects", "tmp", "partial", "bad", "locks", "plans"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                str(root), f"cannot be used as a store: {error.strerror}", "choose --store DIR"
            ) from error
        self._sweep()

    @property
    def known_files(self) -> Path:
        """Where latentc.compiler.known_files keeps digests."""
        return self.root / "known-files.json"

    def find(self, digest: str) -> Artifact | None:
        """The artifact of ``digest`` if it is there and every byte is as written; damage is set aside."""
        folder = self._object(digest)
        if not folder.exists():
            return None
        if self.damage(digest) is not None:
            self._set_aside(folder)
            return None
        record = json.loads((folder / "record.json").read_bytes())
        return Artifact(digest, folder / "content", record["key"], float(record["duration_s"]))

    def contains(self, digest: str) -> bool:
        """There is an entry of ``digest``, sound or not."""
        return self._object(digest).exists()

    def damage(self, digest: str) -> Damage | None:
        """The first thing wrong with the entry of ``digest``, None when it is sound or not there."""
        folder = self._object(digest)
        if not folder.exists():
            return None
        try:
            record = json.loads((folder / "record.json").read_bytes())
            if record["format"] != RECORD_FORMAT or record["digest"] != digest:
                return Damage("record.json", "belongs to another entry or format")
            wanted: dict[str, dict[str, Json]] = record["files"]
            if record["seal"] != _seal(record):
                return Damage("record.json", "was changed")
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Damage("record.json", f"cannot be read: {error}")
        content = folder / "content"
        present = {name for name, _ in _files(content)}
        if present != set(wanted):
            odd = sorted(present ^ set(wanted))[0]
            return Damage(odd, "is missing" if odd in wanted else "does not belong here")
        for name, entry in wanted.items():
            path = content / name
            if (
                path.is_symlink()
                or path.stat().st_size != entry["size_bytes"]
                or sha256_of_file(path) != entry["sha256"]
            ):
                return Damage(name, "is not what was written")
        return None

    @contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """Wait until no other process makes ``digest``, then hold it."""
        with (self.root / "locks" / digest).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty folder on the store's file system, gone afterwards whatever happens."""
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.root / "tmp"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def partial(self, digest: str) -> Partial:
        """Where unfinished work on ``digest`` lies, if there is any."""
        return Partial(self.root / "partial" / digest)

    def open_partial(self, digest: str) -> Partial:
        """The unfinished work on ``digest``, begun when there is none; hold its lock meanwhile."""
        partial = self.partial(digest)
        for folder in (partial.work / "content", partial.units):
            folder.mkdir(parents=True, exist_ok=True)
        # what a process that was killed while it published has done
        for left_over in partial.work.iterdir():
            if left_over.name != "content":
                left_over.unlink()
        for _, path in _files(partial.work / "content"):
            path.chmod(0o644)
        os.utime(partial.units)  # asked for: it waits PARTIAL_KEPT_S from now
        for folder in (partial.work, partial.folder, partial.folder.parent):
            sync(folder)
        return partial

    def publish(self, digest: str, key: dict[str, Json], work: Path, duration_s: float) -> Artifact:
        """Make ``work/content`` the artifact of ``digest``; afterwards it is there whole, or not at all.

        Raises:
            InternalError: the stage wrote nothing, or something that is not a regular file.
            ResourceError: the disk is full.
        """
        content = work / "content"
        try:
            entries: dict[str, Json] = {}
            for name, path in _files(content):
                if path.is_symlink():
                    raise InternalError(name, "a stage wrote a link into its artifact")
                sync(path)
                entries[name] = {"sha256": sha256_of_file(path), "size_bytes": path.stat().st_size}
                path.chmod(0o444)
            if not entries:
                raise InternalError(str(key.get("stage")), "the stage wrote nothing")
            record: dict[str, Json] = {
                "format": RECORD_FORMAT,
                "digest": digest,
                "key": key,
                "files": entries,
                "duration_s": duration_s,
            }
            record["seal"] = _seal(record)
            with whole_file(work / "record.json") as file:
                file.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
            for folder, _, _ in os.walk(work):
                sync(Path(folder))
            final = self._object(digest)
            final.parent.mkdir(exist_ok=True)
            try:
                work.rename(final)
            except OSError as error:
                # another process published the same digest first: its bytes are ours
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            sync(final.parent)
            shutil.rmtree(self.partial(digest).folder, ignore_errors=True)  # else _sweep does it
        except OSError as error:
            raise disk_error(str(self.root), self.root, error) from error
        artifact = self.find(digest)
        if artifact is None:
            raise ResourceError(
                str(self.root), "an artifact was damaged while it was written", "check the disk"
            )
        return artifact

    def last_plan(self, name: str) -> dict[str, dict[str, Json]]:
        """Step label to key of the last plan that ran under ``name``; empty when there is none."""
        try:
            data = json.loads((self.root / "plans" / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return {}  # only a memory for explanations: without it a step is 'not built yet'
        return data if isinstance(data, dict) else {}

    def remember_plan(self, name: str, keys: dict[str, dict[str, Json]]) -> None:
        """Keep ``keys`` for the next `why is this stale?`."""
        with whole_file(self.root / "plans" / f"{name}.json") as file:
            file.write_text(json.dumps(keys, sort_keys=True), encoding="utf-8")

    def _object(self, digest: str) -> Path:
        return self.root / "objects" / digest[:2] / digest

    def _set_aside(self, folder: Path) -> None:
        for number in range(1000):
            aside = self.root / "bad" / f"{folder.name}-{number}"
            if not aside.exists():
                with suppress(FileNotFoundError):  # another process has already moved it
                    folder.rename(aside)
                return
        shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove workspaces of processes that are gone, and unfinished work that nobody goes on with."""
        for folder in (self.root / "tmp").iterdir():
            pid = folder.name.split("-", 1)[0]
            if pid.isdecimal() and not _is_alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.root / "partial").iterdir():
            with (self.root / "locks" / folder.name).open("w") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # another process works on it
                if self.contains(folder.name) or _age_s(folder) > PARTIAL_KEPT_S:
                    shutil.rmtree(folder, ignore_errors=True)


def is_disk_error(error: OSError) -> bool:
    """The disk is full, broken or not writable: the machine's trouble, not a defect."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def disk_error(
    where: str, folder: Path, error: OSError, fix: str = "free space, then run the same command"
) -> ResourceError:
    """What a failed write in ``folder`` means to the user; ``where`` is what was being made.

    ``fix`` is what to do about a full disk.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free_mib = shutil.disk_usage(folder).free // 2**20
        return ResourceError(where, f"the disk is full ({free_mib} MiB free)", fix)
    return ResourceError(
        error.filename or where, f"cannot be written: {error.strerror}", "check the disk and rights"
    )


def _seal(record: dict[str, Json]) -> str:
    sealed = {name: value for name, value in record.items() if name != "seal"}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()


def _files(content: Path) -> Iterator[tuple[str, Path]]:
    for folder, _, names in sorted(os.walk(content)):
        for name in sorted(names):
            path = Path(folder) / name
            yield path.relative_to(content).as_posix(), path


def _age_s(folder: Path) -> float:
    """Seconds since anything was added to unfinished work; 0 when it has gone meanwhile."""
    try:
        changed_s = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return 0.0
    return time.time() - changed_s


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
