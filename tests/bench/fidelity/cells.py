"""Cells: one row of the table for one seed, measured once and kept as one JSON file.

A cell's file is named for all that the benchmark chooses; a chain of passes that was changed gives another
name. What the passes themselves do is not in the name: after a change of a pass, remove the files of its
method.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tests.bench.fidelity.families import FAMILIES
from tests.bench.fidelity.methods import Ceiling, Method, Question, Setting, chain, modelopt_rank

from latentc.runtime.whole_file import whole_file
from latentc.validation.typed_json import as_number, as_object, json_object

METRICS = (
    "trajectory.final_sqnr_db",
    "pictures.psnr_db",
    "pictures.ssim",
    "pictures.feature_distance",
    "pictures.clip_score",
    "pictures.attribute_accuracy",
)
"""What every cell measures, in the report's names."""

OUTLIERS = "-outliers"
SEED_STRIDE = 1000
"""Prompt i of seed S is drawn from noise S · SEED_STRIDE + i, so that no two seeds share noise."""


@dataclass(frozen=True)
class Row:
    """One row of the table: a model, plain or with outliers, and a method.

    Args:
        question: the model's family, bits and ceiling.
        spiky: with outliers.
        method: which.
    """

    question: Question
    spiky: bool
    method: Method

    @property
    def model(self) -> str:
        """Name of the model."""
        return f"{self.question.family.name}{OUTLIERS if self.spiky else ''}"

    @property
    def name(self) -> str:
        """``model/ceiling/setting/method``, what --only matches."""
        return f"{self.model}/{self.question.ceiling}/{self.question.setting}/{self.method}"

    @property
    def what(self) -> str:
        """What the method does, in full."""
        if self.method is Method.MODELOPT:
            return f"svdquant, rank {modelopt_rank(self.question)}"
        return chain(self.question, self.method)


@dataclass(frozen=True)
class Cell:
    """A row for one seed and a number of prompts."""

    row: Row
    seed: int
    prompts: int

    def file(self, folder: Path) -> Path:
        """Where its result lies, or will lie."""
        digest = hashlib.sha256(self.row.what.encode()).hexdigest()[:8]
        stem = self.row.name.replace("/", ".")
        return folder / f"{stem}.{digest}.prompts{self.prompts}.seed{self.seed}.json"


@dataclass(frozen=True)
class Result:
    """What a cell came to.

    Args:
        share: bytes of the linears that rows quantize, over fp16.
        metrics: value by each of METRICS.
        seconds: that the cell took, less where the store had parts of it.
    """

    share: float
    metrics: dict[str, float]
    seconds: float


def rows(only: Sequence[str]) -> Iterator[Row]:
    """Every row whose name matches one of ``only``, or all without patterns; plain models come first."""
    for spiky in (False, True):
        for family in FAMILIES:
            for ceiling in Ceiling:
                for setting in Setting:
                    for method in Method:
                        if method is Method.OURS_INT4 and setting is not Setting.W4A4:
                            continue
                        row = Row(Question(family, setting, ceiling), spiky, method)
                        if not only or any(fnmatchcase(row.name, pattern) for pattern in only):
                            yield row


def write_result(cell: Cell, result: Result, folder: Path) -> None:
    """Keep ``result``; a file that is there is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "row": cell.row.name,
        "what": cell.row.what,
        "seed": cell.seed,
        "prompts": cell.prompts,
        "share": result.share,
        "metrics": result.metrics,
        "seconds": round(result.seconds, 1),
    }
    with whole_file(cell.file(folder)) as file:
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_result(cell: Cell, folder: Path) -> Result | None:
    """What write_result kept, or None while there is nothing."""
    path = cell.file(folder)
    if not path.is_file():
        return None
    told = json_object(path, "remove it, and run the cell again")
    metrics = {name: as_number(value) for name, value in as_object(told["metrics"]).items()}
    return Result(as_number(told["share"]), metrics, as_number(told["seconds"]))
