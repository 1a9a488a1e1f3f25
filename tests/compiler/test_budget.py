"""A budget is a size in words, and what does not fit is refused with the least that works."""

from __future__ import annotations

import numpy as np
import pytest

from latentc.compiler.budget import Budget, memory_bytes_from_text, resident_bytes
from latentc.errors import ResourceError, UsageError


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("3GiB", 3 * 2**30), ("800 MiB", 800 * 2**20), ("1.5gib", 3 * 2**29), ("2GB", 2 * 10**9)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert memory_bytes_from_text(text) == size_bytes


@pytest.mark.parametrize("text", ["", "3", "3G", "-1GiB", "lots"])
def test_no_size(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        memory_bytes_from_text(text)
    assert str(caught.value) == (
        f"--memory {text}: is no size\nfix: write a number with its unit: 3GiB, or 800MiB"
    )


def test_room_is_what_the_process_does_not_hold() -> None:
    assert Budget(2).room_bytes("x", 2**60) is None
    room = Budget(2, 64 << 30).room_bytes("x", 1 << 20)
    assert room is not None
    assert 0 < (64 << 30) - room - resident_bytes() < 128 << 20


def test_resident_bytes_follow_what_is_held() -> None:
    before = resident_bytes()
    held = np.ones(1 << 24, np.uint8)
    assert 0.9 * held.nbytes < resident_bytes() - before < 1.5 * held.nbytes


def test_the_least_that_works_is_said_and_works() -> None:
    with pytest.raises(ResourceError) as caught:
        Budget(1, 1 << 20).room_bytes("unet", 64 << 20)
    said = str(caught.value)
    least = said.rpartition("--memory ")[2].removesuffix(" or more")
    assert said == (
        f"unet: the largest layer takes {least.removesuffix('MiB')} MiB of memory, the budget is 1 MiB\n"
        f"fix: give --memory {least} or more"
    )
    # a little more, since the process itself grows between the two calls
    assert Budget(1, memory_bytes_from_text(least) + (4 << 20)).room_bytes("unet", 64 << 20) is not None
