"""Every error a user can meet, in one tree; each branch has its own exit code.

    LatentcError                  70  a defect of ours unless a branch below says otherwise
    ├── GateFailed                 1  validation ran and a limit is broken
    ├── UsageError                 2  the command line asks for something that cannot be
    │   └── RecipeError            2  a recipe cannot be read, or asks for something impossible
    ├── ModelError                 3  a model folder or an adapter cannot be read
    ├── TargetError                4  the target cannot do this
    ├── ToolMissing                5  an optional package is not installed; names the extra
    ├── ResourceError              6  out of memory or disk
    ├── BundleError                7  a bundle is damaged or not to be trusted
    ├── PassError                  2  a pass cannot do what its options ask of this graph
    └── InternalError             70  a promise between our own parts is broken

A message answers three questions: where, what was seen against what was wanted, what to do now.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class LatentcError(Exception):
    """Base of all errors; ``str()`` is the message, ``fix`` the way out.

    Args:
        where: file and key, node, tensor or option; empty when there is no place to name.
        message: what was seen against what was wanted.
        fix: what to do now; empty when there is nothing to do but report it.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, where: str, message: str, fix: str = "") -> None:
        super().__init__(where, message, fix)
        self.where = where
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\nfix: {self.fix}" if self.fix else text


class GateFailed(LatentcError):
    """Validation ran to its end and at least one limit of the recipe is broken."""

    exit_code = 1


class UsageError(LatentcError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe cannot be read, or asks for something impossible."""


class PassError(LatentcError):
    """A pass cannot do to this graph what its options ask."""

    exit_code = 2


class ModelError(LatentcError):
    """A model folder or an adapter file cannot be read, or is not what the recipe says."""

    exit_code = 3


class TargetError(LatentcError):
    """The target's hardware or runtime cannot do what is asked."""

    exit_code = 4


class ToolMissing(LatentcError):
    """An optional package is not installed; the fix names the extra that brings it."""

    exit_code = 5

    @classmethod
    def package(cls, name: str, extra: str) -> ToolMissing:
        """The error for a missing import of ``name``, which ``latentc[extra]`` installs."""
        return cls("", f"the package '{name}' is not installed", f"pip install 'latentc[{extra}]'")


class ResourceError(LatentcError):
    """Memory or disk is too small, before or in the middle of the work."""

    exit_code = 6


class BundleError(LatentcError):
    """A bundle is damaged, incomplete, of another version, or not to be trusted."""

    exit_code = 7


class InternalError(LatentcError):
    """A promise between two of our own parts is broken; please report it."""

    exit_code = 70


def nearest(wrong: str, offered: Iterable[str]) -> str:
    """A fix line that names the closest of ``offered``, or all of them when none is close."""
    choices = sorted(offered)
    close = get_close_matches(wrong, choices, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(choices)}"
