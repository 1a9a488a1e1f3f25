"""Returned memory: what a finished step held goes back to the system before the next one begins.

A pipeline's modules refer to one another in circles, and the C library keeps what was freed in small pieces:
a build would carry the original's weights through all steps that follow.
"""

from __future__ import annotations

import ctypes
import gc
import sys


def return_memory() -> None:
    """Collect what nobody refers to, and give back the pages that it was on."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc's alone
            trim(0)
