"""One thread: matrix products that add up in one order, for the same bytes on any number of cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np  # noqa: F401 # loads the library that is looked for
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped] # ships no types


@contextmanager
def one_thread() -> Iterator[None]:
    """Let numpy's matrix products run on one core within."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Numpy's library, found once: looking through all that is loaded takes longer than a small layer."""
    return ThreadpoolController()
