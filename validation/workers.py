"""Workers: the same work on many things, some at a time, results in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from latentc.validation.progress import Progress

Thing = TypeVar("Thing")
Result = TypeVar("Result")

SMALL_PIXELS = 256 * 256
"""Up to this size one thread a picture and several pictures at a time is quicker than several threads a
picture: on 2 cores 9 ms of CPU a row of the demo's denoiser instead of 16, the rest is threads that wait."""


def workers_for(height: int, width: int, threads: int) -> int:
    """How many pictures of ``height`` × ``width`` pixels to draw at a time.

    Args:
        height: pixels.
        width: pixels.
        threads: at most this many; 0 takes one a core.
    """
    return (threads or os.cpu_count() or 1) if height * width <= SMALL_PIXELS else 1


def each(
    things: Sequence[Thing], work: Callable[[Thing], Result], workers: int, progress: Progress, what: str
) -> list[Result]:
    """``work`` on all of ``things``, in their order; ``progress`` is told from the calling thread.

    The first exception ends it: what has not begun does not begin.
    """
    if workers <= 1:
        results = []
        for number, thing in enumerate(things):
            progress(number / len(things), f"{what}, {number} done")
            results.append(work(thing))
        return results
    pool = ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(work, thing) for thing in things]
        for number, future in enumerate(as_completed(futures)):
            future.result()
            progress((number + 1) / len(things), f"{what}, {number + 1} done")
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
