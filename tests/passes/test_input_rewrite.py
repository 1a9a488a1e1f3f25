"""A proposal is taken where held-out rows lose less by it, and only there; all that was tried is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.attention_graphs import JOINED
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import inputs_of, model_of, operators, relative_error, run_model

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.channel_transform import ChannelTransform
from latentc.passes.input_rewrite import InputRewrite, Proposal, Reading
from latentc.passes.layer_rows import ROWS, rows_of
from latentc.passes.moments import Moments
from latentc.passes.options import limits, options_of
from latentc.passes.rounded_error import RoundingToCome
from latentc.passes.weights import Floats, find_linears, initializer

GRAPH = """g (float[B,64] x) => (float[B,64] y, float[B,64] z) <float[64,64] w, float[64,64] v> {
    y = MatMul (x, w)
    z = MatMul (x, v) }"""
MADE = """g (float[B,T,6] x) => (float[B,T,64] y, float[B,T,64] z)
    <float[6,64] u, float[64,64] w, float[64,64] v> {
    a = MatMul (x, u)
    y = MatMul (a, w)
    z = MatMul (a, v) }"""


@dataclass(frozen=True)
class Half(ChannelTransform):
    """T = 1 / 2."""

    def columns(self, array: Floats) -> Floats:
        return array * np.float32(0.5)

    def rows(self, weight: Floats) -> Floats:
        return weight * np.float32(2)

    def nodes(self, graph: ir.Graph, value: ir.Value, K: int) -> list[ir.Node]:
        half = initializer(graph, f"{value.name}.half", ir.tensor(np.array(0.5, np.float32)))
        node = ir.node("Mul", [value, half])
        node.name = node.outputs[0].name = f"{value.name}.halved"
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, value.shape
        return [node]


@dataclass(frozen=True)
class Halve(InputRewrite):
    """Halves inputs and doubles weights, and says that this loses ``error``."""

    name: ClassVar[str] = "halve"
    version: ClassVar[int] = 1
    considered: ClassVar[str] = "latentc.halved"
    mixes_channels: ClassVar[bool] = False

    error: float = field(default=0.0, metadata=limits(0, 1, "of the rounded layer"))

    def propose(self, readings: Sequence[Reading], mixes: int) -> Proposal:
        for one in readings:
            assert len(one.weight) == 64
            assert (len(one.rows.fit), len(one.rows.held_out)) == (24, 12)
        return Proposal("halves", (self.error,) * len(readings), "halves are no better", Half())


@dataclass(frozen=True)
class Mix(Halve):
    """Halves as well, as if it mixed channels, and loses ``restricted`` where not all may be mixed."""

    name: ClassVar[str] = "mix"
    mixes_channels: ClassVar[bool] = True

    restricted: float = field(default=0.0, metadata=limits(0, 1, "of the rounded layer"))

    def propose(self, readings: Sequence[Reading], mixes: int) -> Proposal:
        error = self.error if mixes == 64 else self.restricted
        return Proposal(f"mixes {mixes}", (error,) * len(readings), "is no better", Half())


def recorded(folder: Path, seed: int) -> PassContext:
    (folder / ROWS).mkdir(parents=True)
    rows = np.random.default_rng(seed).standard_normal((36, 64)).astype(np.float32)
    for name in ("w", "v", "xo_weight", "yo_weight"):
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
        ("w, v", f"halves: held-out error {before:.4f} to 0.0000, online: 'x' is an input")
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


def test_what_makes_an_input_takes_the_change(tmp_path: Path, seed: int) -> None:
    model, context = model_of(MADE), recorded(tmp_path / "records", seed)
    moments = Moments(np.eye(64, dtype=np.float32), np.eye(64, dtype=np.float32))
    context.moments.update(a=moments, x=moments)
    result = Halve()(model, context)
    assert operators(result.model) == operators(model)
    assert largest_error(model, result.model, tmp_path, seed) == 0  # powers of two are exact
    before = context.ledger.trials[0].relative_error
    assert [(change.where, change.what) for change in result.changes] == [
        ("w, v", f"halves: held-out error {before:.4f} to 0.0000, folded into u")
    ]
    assert [(trial.layer, trial.way, trial.taken) for trial in context.ledger.trials] == [
        ("w", "as it is", False),
        ("w", "halves, folded", True),
        ("v", "as it is", False),
        ("v", "halves, folded", True),
    ]
    assert list(context.moments) == ["x"]  # those of a were of another a
    linears = [one for one in find_linears(result.model.graph) if one.name in "wv"]
    for linear in linears:
        rows = np.load(tmp_path / "records" / ROWS / f"{linear.name}.fit.npy")
        np.testing.assert_array_equal(rows_of("test", linear, context).fit, rows / 2)
    assert_twice_is_once(Halve(optional=True), model, recorded(tmp_path / "again", seed))


def test_without_fold_and_with_a_maker_to_skip_it_is_online(tmp_path: Path, seed: int) -> None:
    model, context = model_of(MADE), recorded(tmp_path, seed)
    for step, why in (
        (Halve(fold=False), "fold is false"),
        (Halve(skip=("u",)), "'u' matches skip"),
    ):
        result = step(model, context)
        assert operators(result.model) == ["MatMul", "Mul", "MatMul", "MatMul"]
        assert result.changes[0].what.endswith(f", online: {why}")
        assert result.model.graph.initializers["u"].const_value is model.graph.initializers["u"].const_value


def test_what_is_no_better_is_not_folded(tmp_path: Path, seed: int) -> None:
    result = Halve(error=1.0, optional=True)(model_of(MADE), recorded(tmp_path, seed))
    assert operators(result.model) == ["MatMul", "MatMul", "MatMul"]
    assert [(one.where, one.why) for one in result.refusals if one.where == "w, v"] == [
        ("w, v", "halves are no better on held-out rows (1.0000)")
    ]


HEADS = JOINED.replace("32", "64").replace("4, 8}", "4, 16}").replace(",16]", ",64]").replace("[16]", "[64]")


@pytest.mark.parametrize(
    ("error", "restricted", "is_folded"), [(0.02, 0.021, True), (0.02, 0.022, False), (0.02, 0.019, True)]
)
def test_a_restricted_way_is_folded_where_it_is_about_as_good(
    error: float, restricted: float, is_folded: bool, tmp_path: Path, seed: int
) -> None:
    """Blocks within a head of 16, against blocks over all channels, for both readers of one attention."""
    model, context = model_of(HEADS), recorded(tmp_path / "records", seed)
    result = Mix(error, restricted=restricted)(model, context)
    told = {change.where: change.what.split(", ", 1)[1] for change in result.changes}
    if is_folded:
        assert told == {"xo_weight, yo_weight": "folded into xv_weight, xv_bias, yv_weight, yv_bias"}
        assert operators(result.model) == operators(model)
    else:
        why = f"online: folded it loses {restricted:.4f}"
        assert told == {"xo_weight": why, "yo_weight": why}
        assert operators(result.model).count("Mul") == operators(model).count("Mul") + 2
    taken = {(trial.layer, trial.way): trial.taken for trial in context.ledger.trials}
    for name in ("xo_weight", "yo_weight"):
        assert taken[name, "mixes 16, folded"] == is_folded
        assert taken[name, "mixes 64"] == (not is_folded)
        assert not taken[name, "as it is"]
    feeds = {**inputs_of(model, {"B": 2, "S": 5, "T": 7}, seed), "middle": np.array([4])}
    seen, wanted = (run_model(one, tmp_path / "run", feeds) for one in (result.model, model))
    assert max(relative_error(one, other) for one, other in zip(seen, wanted, strict=True)) == 0


def test_norms_and_gates_cannot_mix(tmp_path: Path, seed: int) -> None:
    norm = MADE.replace("a = MatMul (x, u)", "p = MatMul (x, u) a = LayerNormalization (p, g)")
    norm = norm.replace("float[6,64] u,", "float[6,64] u, float[64] g,")
    result = Mix()(model_of(norm), recorded(tmp_path, seed))
    assert result.changes[0].what.endswith(", online: g can only be scaled")


def test_own_options_come_first_and_the_shared_ones_by_name() -> None:
    assert [option.name for option in options_of(Halve)] == [
        "error",
        "bits",
        "group",
        "rank",
        "symmetric",
        "fold",
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
