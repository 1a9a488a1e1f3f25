"""Allotment: how many bits one linear gets, and what rank its low-rank branch; its bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.low_rank import BranchType, branch_bytes
from latentc.passes.weights import Linear
from latentc.recipes.choice import Choice

ALLOTTED = "latentc.allotted"
"""Node metadata on a MatMul: the allotment of its weight, as text."""

_TEXT = re.compile(
    r"(?P<precision>float|int8|int4)(?:@(?P<subspace>[1-9][0-9]*))?(?:\+(?P<rank>[1-9][0-9]*))?"
)


class Precision(Choice):
    """How a weight is stored."""

    FLOAT = "float"
    INT8 = "int8"
    INT4 = "int4"


@dataclass(frozen=True)
class Allotment:
    """What one linear gets; as text ``int4@8+16``, ``int4+16``, ``int4``, ``int8`` or ``float``.

    Args:
        precision: of its weight.
        rank: of the branch beside an INT4 weight; 0 for none.
        subspace: how many directions of its input are kept apart from an INT4 weight; 0 for none.
    """

    precision: Precision
    rank: int = 0
    subspace: int = 0

    def __str__(self) -> str:
        subspace = f"@{self.subspace}" if self.subspace else ""
        rank = f"+{self.rank}" if self.rank else ""
        return f"{self.precision}{subspace}{rank}"

    def weight_bytes(self, K: int, N: int, group: int, branch: BranchType) -> int:
        """Stored bytes of a [K, N] weight: codes, float16 steps, branch, its part along the subspace.

        A float weight counts as float16; the subspace itself, which linears share, does not count.
        """
        if self.precision is Precision.FLOAT:
            return 2 * K * N
        if self.precision is Precision.INT8:
            return K * N + 2 * N
        along = self.subspace * N + 2 if self.subspace else 0
        beside = branch_bytes(K, N, self.rank, branch) if self.rank else 0
        return K * N // 2 + 2 * (K // group) * N + along + beside


def allotment_from_text(text: str, where: str) -> Allotment:
    """The allotment that ``text`` names; raises PassError at ``where`` otherwise."""
    found = _TEXT.fullmatch(text)
    if found is None or ((found["rank"] or found["subspace"]) and found["precision"] != "int4"):
        raise PassError(where, f"'{text}' is no allotment", "write float, int8, int4, int4+16 or int4@8+16")
    return Allotment(Precision(found["precision"]), int(found["rank"] or 0), int(found["subspace"] or 0))


def allotment_of(linear: Linear) -> Allotment | None:
    """What ``linear`` was given by allocate; None when nothing was."""
    text = linear.nodes[0].metadata_props.get(ALLOTTED)
    return None if text is None else allotment_from_text(text, linear.name)


def allot(linear: Linear, allotment: Allotment) -> None:
    """Note ``allotment`` on every MatMul of ``linear``."""
    for node in linear.nodes:
        node.metadata_props[ALLOTTED] = str(allotment)


def is_allotted(graph: ir.Graph) -> bool:
    """Whether allocate has been here."""
    return any(ALLOTTED in node.metadata_props for node in graph)
