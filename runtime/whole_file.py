"""A file that appears whole or not at all, even through a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path, work: Path | None = None) -> Iterator[Path]:
    """Yield a path to write to; what is there when the block ends takes the place of ``path``.

    Args:
        path: holds its old bytes or the new ones at any moment; when the block raises, the old ones.
        work: an existing folder on the same disk to write in; None takes that of ``path``. A process that
            is killed leaves its half-written file there.

    Raises:
        OSError: as the disk has it.
    """
    temporary = (work or path.parent) / f".{path.name}.{os.getpid()}.part"
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the renames in a folder, last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
