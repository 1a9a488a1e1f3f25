"""Stage and Step: a piece of work, and that work with its inputs. A step's digest is its identity."""

from __future__ import annotations

import hashlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from latentc.runtime.manifest import Json

Progress = Callable[[float, str], None]
"""Called with the finished fraction (0…1) and a few words on what is being done now.

The first call of a stage says what it begins with: 0, or what an earlier run had finished.
"""


class Stage(ABC):
    """One kind of work with its options; subclasses are frozen dataclasses.

    Class attributes:
        name: what plan and progress call it.
        version: raised whenever the same options and inputs give other bytes.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @abstractmethod
    def options(self) -> dict[str, Json]:
        """Everything besides the inputs that changes the result's bytes, files by their SHA-256."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Read the folders ``inputs`` and write the result into the empty folder ``out``."""


class ResumableStage(Stage):
    """A stage of many units, long enough that those it has finished are kept when it is stopped.

    How it is stopped does not matter: an error, a full disk, a kill, a power cut. What it writes in the end
    is the same to the byte, however often that was.
    """

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Do all of it at once, and keep nothing when it is stopped."""
        with tempfile.TemporaryDirectory(prefix="latentc-") as units:
            self.resume(inputs, out, Path(units), progress)

    @abstractmethod
    def resume(self, inputs: Mapping[str, Path], out: Path, units: Path, progress: Progress) -> None:
        """Go on where an earlier call with the same options and inputs was stopped; at first, begin.

        Args:
            inputs: folders to read.
            out: what that call left here, finished or not, trusted or removed before this returns; then it
                holds the result and nothing else.
            units: a folder for latentc.compiler.finished_units, kept until the result is published.
            progress: as in ``run``.
        """


@dataclass(frozen=True)
class Step:
    """A stage with its inputs.

    Args:
        label: unique in a plan and readable, such as ``transform/unet``.
        stage: what to do.
        inputs: the steps whose results it reads, by the name the stage knows them under.
    """

    label: str
    stage: Stage
    inputs: Mapping[str, Step]

    @cached_property
    def key(self) -> dict[str, Json]:
        """What the digest is made of, spelled out, so that two keys can be compared in words."""
        return {
            "stage": self.stage.name,
            "version": self.stage.version,
            "options": self.stage.options(),
            "inputs": {name: step.digest for name, step in sorted(self.inputs.items())},
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the key as canonical JSON, in hexadecimal."""
        text = json.dumps(self.key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
