"""Known files: SHA-256 of large files that were read before, kept so that they need not be read again.

A file is known by device, inode, size and time of change, as git's index knows files. What was changed while
it was read, or shortly before, is not kept: a later change might bear the same time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from latentc.runtime.whole_file import whole_file

FORMAT = 1
_SETTLED_S = 2.0
"""How long ago the last change must be: the coarsest clock of a file system in use (FAT) counts in two."""
_KEPT = 4096


class KnownFiles:
    """The digests that ``path`` holds; several processes may use it at once, the last to write wins.

    Args:
        path: a file, which need not exist; None: nothing is known and nothing is kept.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._digests = _read(path)

    def sha256(self, file: Path, read: Callable[[], str]) -> str:
        """The SHA-256 of ``file``: as it was known, or as ``read`` finds it."""
        before = file.stat()
        known = self._digests.get(_key(before))
        if known is not None:
            return known
        digest = read()
        if _key(file.stat()) == _key(before) and time.time() - before.st_mtime > _SETTLED_S:
            self._digests[_key(before)] = digest
            self._keep()
        return digest

    def _keep(self) -> None:
        if self._path is None:
            return
        latest = dict(list(({**_read(self._path), **self._digests}).items())[-_KEPT:])
        with whole_file(self._path) as file:
            file.write_text(json.dumps({"format": FORMAT, "sha256": latest}, indent=0), encoding="utf-8")


def _key(state: os.stat_result) -> str:
    return f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"


def _read(path: Path | None) -> dict[str, str]:
    """What ``path`` holds; nothing when it is not there or not whole: then files are read again."""
    if path is None or not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            return {}
        return {str(key): str(digest) for key, digest in data["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
