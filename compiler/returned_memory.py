"""Returned memory: what a finished step held goes back to the system before the next one begins.

A pipeline's modules refer to one another in circles, and the C library keeps what was freed in small pieces:
a build would carry the original's weights through all steps that follow.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WORTH_BYTES = 64 * 2**20
"""Collecting looks at every object of torch, a quarter of a second."""


@contextmanager
def returned_memory(worth_bytes: int = _WORTH_BYTES) -> Iterator[None]:
    """Give back what the work inside has left, when it is ``worth_bytes`` and more."""
    before = _resident_bytes()
    yield
    if _resident_bytes() - before >= worth_bytes:
        return_memory()


def return_memory() -> None:
    """Collect what nobody refers to, and give back the pages that it was on."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc's alone
            trim(0)


def _resident_bytes() -> int:
    """Of this process; 0 where the system does not say, and then nothing is worth it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else 0
