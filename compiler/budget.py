"""Budget: how much of the machine a build may use. Nothing of it changes a byte of what is built."""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path

from latentc.compiler.toolchain import threads
from latentc.errors import ResourceError, UsageError

_SLACK_BYTES = 96 << 20
"""What is kept free beside all estimates: freed memory that the allocator holds on to, buffers, a stack."""
_MIB = 1 << 20
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(MiB|GiB|MB|GB)", re.IGNORECASE)
_UNITS = {"mib": 2**20, "gib": 2**30, "mb": 10**6, "gb": 10**9}


@dataclass(frozen=True)
class Budget:
    """What a build may use.

    Args:
        workers: layers that are computed at the same time.
        memory_bytes: that the process may take, all of it; None: as much as ``workers`` layers need.
    """

    workers: int = field(default_factory=threads)
    memory_bytes: int | None = None

    def room_bytes(self, where: str, largest_bytes: int) -> int | None:
        """What is left for layers beside what the process holds now; None for no limit.

        Args:
            where: for the message.
            largest_bytes: what the largest layer needs.

        Raises:
            ResourceError: that one does not fit; names the least budget that works.
        """
        if self.memory_bytes is None:
            return None
        held_bytes = resident_bytes() + _SLACK_BYTES
        self.require(where, "the largest layer", held_bytes + largest_bytes)
        return self.memory_bytes - held_bytes

    def require(self, where: str, what: str, least_bytes: int, otherwise: str = "") -> None:
        """Raise ResourceError when ``what`` takes more than the budget; ``otherwise`` is another way out."""
        if self.memory_bytes is None or least_bytes <= self.memory_bytes:
            return
        least_mib = -(-least_bytes // _MIB)
        raise ResourceError(
            where,
            f"{what} takes {least_mib} MiB of memory, the budget is {self.memory_bytes // _MIB} MiB",
            f"give --memory {least_mib}MiB or more{f'; or {otherwise}' if otherwise else ''}",
        )


def resident_bytes() -> int:
    """Memory of this process, shared pages included; where the system does not say, the most it ever was."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_bytes_from_text(text: str) -> int:
    """Bytes from a number with a unit, such as ``3GiB`` or ``800MiB``; raises UsageError on anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--memory {text}", "is no size", "write a number with its unit: 3GiB, or 800MiB")
    return round(float(match[1]) * _UNITS[match[2].lower()])
