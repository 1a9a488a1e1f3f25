"""A proposal is taken where held-out rows lose less by it, and only there; all that was tried is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.four_gates import largest_error
from tests.passes.graphs import model_of, operators

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.input_rewrite import InputRewrite, Proposal
from latentc.passes.layer_rows import ROWS, Rows
from latentc.passes.options import limits, options_of
from latentc.passes.rounded_error import RoundingToCome
from latentc.passes.shared_inputs import SharedInput
from latentc.passes.weights import Floats, initializer

GRAPH = """g (float[B,T,64] x) => (float[B,T,64] y, float[B,T,64] z) <float[64,64] w, float[64,64] v> {
    y = MatMul (x, w)
    z = MatMul (x, v) }"""


@dataclass(frozen=True)
class Halve(InputRewrite):
    """Halves inputs and doubles weights, and says that this loses ``error``."""

    name: ClassVar[str] = "halve"
    version: ClassVar[int] = 1
    considered: ClassVar[str] = "latentc.halved"

    error: float = field(default=0.0, metadata=limits(0, 1, "of the rounded layer"))

    def propose(self, weight: Floats, rows: Rows) -> Proposal:
        assert weight.shape == (64, 128)  # both linears, side by side
        assert (len(rows.fit), len(rows.held_out)) == (24, 12)
        return Proposal("halves", self.error, "halves are no better", self._halve)

    def _halve(self, graph: ir.Graph, shared: SharedInput) -> None:
        half = initializer(graph, "half", ir.tensor(np.array(0.5, np.float32)))
        node = ir.node("Mul", [shared.value, half])
        node.name = node.outputs[0].name = "halved"
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, shared.value.shape
        shared.rewrite(graph, [node], lambda weight: weight * 2, self.name)


def recorded(folder: Path, seed: int) -> PassContext:
    (folder / ROWS).mkdir(parents=True)
    rows = np.random.default_rng(seed).standard_normal((36, 64)).astype(np.float32)
    for name in ("w", "v"):
        np.save(folder / ROWS / f"{name}.fit.npy", rows[:24])
        np.save(folder / ROWS / f"{name}.held_out.npy", rows[24:])
    return PassContext(calibration=folder)


def test_what_is_better_is_taken(tmp_path: Path, seed: int) -> None:
    model, context = model_of(GRAPH), recorded(tmp_path / "records", seed)
    result = Halve()(model, context)
    assert operators(result.model) == ["Mul", "MatMul", "MatMul"]
    assert largest_error(model, result.model, tmp_path, seed) == 0  # powers of two are exact
    before = context.ledger.trials[0].relative_error
    assert [(change.where, change.what) for change in result.changes] == [
        ("w, v", f"halves: held-out error {before:.4f} to 0.0000")
    ]
    assert [(trial.layer, trial.way, trial.taken) for trial in context.ledger.trials] == [
        ("w", "as it is", False),
        ("w", "halves", True),
        ("v", "as it is", False),
        ("v", "halves", True),
    ]


def test_what_is_no_better_is_not(tmp_path: Path, seed: int) -> None:
    context = recorded(tmp_path, seed)
    first = Halve(error=1.0, optional=True)(model_of(GRAPH), context)
    assert operators(first.model) == ["MatMul", "MatMul"]
    assert [(refusal.where, refusal.why) for refusal in first.refusals] == [
        ("w, v", "halves are no better on held-out rows (1.0000)")
    ]
    assert [trial.taken for trial in context.ledger.trials] == [True, False, True, False]
    again = Halve(optional=True)(first.model, context)
    assert [(refusal.where, refusal.why) for refusal in again.refusals] == [
        ("w", "was considered already"),
        ("v", "was considered already"),
    ]


def test_own_options_come_first_and_the_shared_ones_by_name() -> None:
    assert [option.name for option in options_of(Halve)] == [
        "error",
        "bits",
        "group",
        "rank",
        "symmetric",
        "skip",
        "optional",
    ]
    halve = Halve(0.5, rank=0, bits=8)
    assert str(halve) == "halve{error=0.5, bits=8, rank=0}"
    assert halve.rounding == RoundingToCome(bits=8, group=64, rank=0)
    assert (halve.needs_calibration, halve.needs_rows, halve.preserves) == (True, True, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 5}, "halve.bits: is 5, wanted 4 or 8\nfix: write bits=4"),
        ({"group": 48}, "halve.group: is 48, wanted a power of two\nfix: write group=64"),
    ],
)
def test_bits_and_group_that_nothing_executes(settings: dict[str, int], message: str) -> None:
    with pytest.raises(PassError) as caught:
        Halve(**settings)  # type: ignore[arg-type] # settings that are all numbers
    assert str(caught.value) == message


def test_a_gemm_is_refused() -> None:
    gemm = model_of("g (float[B,64] x) => (float[B,64] y) <float[64,64] w> { y = Gemm (x, w) }")
    with pytest.raises(PassError, match="is a Gemm, wanted MatMul and Add"):
        Halve()(gemm, PassContext())
