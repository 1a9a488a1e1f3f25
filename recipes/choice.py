"""Choice: a string enum whose members print as their value."""

from __future__ import annotations

from enum import Enum


class Choice(str, Enum):
    """Like Python 3.11's StrEnum, which JetPack 6 (Python 3.10) does not have."""

    def __str__(self) -> str:
        return str(self.value)
