"""Finished units: parts of a long stage that are done, each in a file that is whole and sound or not there.

units/<number>-of-<total>   SHA-256 of what follows, 32 bytes, and a numpy archive
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from latentc.runtime.whole_file import whole_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Unit: TypeAlias = "Mapping[str, npt.NDArray[np.generic]]"
"""What a stage has to know of a part that it did, by names of its own."""

_NAME = re.compile(r"(\d+)-of-(\d+)")

_SEAL_BYTES = hashlib.sha256().digest_size


class FinishedUnits:
    """The finished ones of a stage's units; one process at a time has them, see Store.lock.

    Args:
        folder: exists; half-written files of a killed process are removed.
        total: how many units the stage has when all are finished, from 1.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self._folder = folder
        self.total = total
        for left_over in folder.glob(".*.part"):
            left_over.unlink()

    def read(self, number: int) -> Unit | None:
        """Unit ``number`` (0…total - 1) as it was written; None when it is not finished, or not sound."""
        import numpy as np

        path = self._path(number)
        if not path.exists():
            return None
        data = path.read_bytes()
        seal, archive = data[:_SEAL_BYTES], data[_SEAL_BYTES:]
        if hashlib.sha256(archive).digest() != seal:
            self.forget(number)
            return None
        with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
            return dict(arrays)

    def write(self, number: int, unit: Unit) -> None:
        """Keep ``unit``, even through a power cut; raises OSError when the disk does not take it."""
        import numpy as np

        archive = io.BytesIO()
        np.savez(archive, allow_pickle=False, **unit)
        with whole_file(self._path(number)) as file:
            file.write_bytes(hashlib.sha256(archive.getvalue()).digest() + archive.getvalue())

    def forget(self, number: int) -> None:
        """Throw unit ``number`` away: it has to be done again."""
        self._path(number).unlink(missing_ok=True)

    def count(self) -> int:
        """How many there are, sound or not."""
        return sum(self._path(number).exists() for number in range(self.total))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:04d}-of-{self.total:04d}"


def share_finished(folder: Path) -> float:
    """The finished share (0…1) of a stage that keeps its units in ``folder``, which need not exist."""
    if not folder.is_dir():
        return 0.0
    found = [match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return len(found) / int(found[0][2]) if found else 0.0
