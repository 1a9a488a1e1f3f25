"""Split-subspace keeps the function, shares directions, and does what allocate said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import model_of, operators

from latentc.errors import PassError
from latentc.passes.allocate import Allocate
from latentc.passes.base import Pass, PassContext
from latentc.passes.layer_rows import ROWS, RowKind, rows_file, rows_of
from latentc.passes.quantize_activations import QuantizeActivations
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights
from latentc.passes.sequence import run_passes
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.split_subspace import SplitSubspace
from latentc.passes.weight_bytes import weigh
from latentc.passes.weights import Floats, find_linears

LINEARS = """g (float[B,64] x) => (float[B,64] y, float[B,64] z, float[B,64] c)
<float[64,64] w, float[64] b, float[64,64] v, float[64,64] u> {
    product = MatMul (x, w)
    y = Add (product, b)
    z = MatMul (x, v)
    c = MatMul (x, u) }"""


def uneven_rows(seed: int) -> Floats:
    """Rows of one distribution, whose spectrum falls by a factor of 50."""
    mixing = np.random.default_rng(0).standard_normal((64, 64)) * np.geomspace(1, 1 / 50, 64)[:, None]
    random = np.random.default_rng(seed)
    return np.asarray(random.standard_normal((200, 64)) @ mixing, dtype=np.float32)


@pytest.fixture
def context(tmp_path: Path, seed: int) -> PassContext:
    folder = tmp_path / "records"
    (folder / ROWS).mkdir(parents=True)
    for number in range(3):
        np.savez(folder / f"{number:04d}.npz", x=uneven_rows(seed + number))
    for name in ("w", "v", "u"):
        for kind in RowKind:
            np.save(rows_file(folder / ROWS, name, kind), uneven_rows(seed + 7))
    return PassContext(calibration=folder)


def test_twice_is_once(context: PassContext) -> None:
    assert_twice_is_once(SplitSubspace(), model_of(LINEARS), context)


def test_the_function_stays(context: PassContext, tmp_path: Path, seed: int) -> None:
    model = model_of(LINEARS)
    after = SplitSubspace()(model, context).model
    assert largest_error(model, after, tmp_path, seed) < 1e-5


def test_linears_that_share_an_input_share_its_directions(context: PassContext) -> None:
    after = SplitSubspace(directions=8)(model_of(LINEARS), context).model
    assert operators(after).count("Sub") == 1
    assert operators(after).count("MatMul") == 3 + 3 + 2  # linears, their parts along, x P and z Pᵀ
    assert [linear.name for linear in find_linears(after.graph)] == ["w", "v", "u"]


def test_what_allocate_gave(context: PassContext, tmp_path: Path, seed: int) -> None:
    passes: list[Pass] = [
        Allocate(plan=("w=int4@8+4", "v=int8", "u=int4@8")),
        SplitSubspace(),
        SplitLowRank(calibrated=False),
        QuantizeInt8Weights(),
        QuantizeInt4(),
        QuantizeActivations(bits=4),
    ]
    model = model_of(LINEARS)
    after, reports = run_passes(model, passes, context)
    assert [change.where for change in reports[1].changes] == ["w, u"]
    assert [change.where for change in reports[2].changes] == ["w"]
    assert [change.what for change in reports[-1].changes] == [
        "to int4 in groups of 64, simulated",
        "to int8 in groups of 64, simulated",
    ]
    assert largest_error(model, after, tmp_path, seed) < 0.25  # 4 bits on both sides of white inputs
    plan = {"w": "int4@8+4", "v": "int8", "u": "int4@8"}
    foretold = sum(
        allotment.weight_bytes(64, 64, 64, SplitLowRank().branch)
        for allotment in Allocate(plan=tuple(f"{k}={v}" for k, v in plan.items())).planned().values()
    )
    shared = 8 * 64 + 2 * 8 + 4
    assert weigh(after).quantized_bytes == foretold + shared
    assert weigh(after).quantized_fp16_bytes == 3 * 2 * 64 * 64


def test_four_bit_activations_lose_less(context: PassContext, tmp_path: Path, seed: int) -> None:
    model = model_of(LINEARS)
    errors = []
    rows = uneven_rows(seed + 9)
    for passes in ([], [SplitSubspace(directions=16)]):
        chain: list[Pass] = [*passes, QuantizeInt4(), QuantizeActivations(bits=4)]
        after, _ = run_passes(model, chain, context)
        errors.append(_error_on(rows, model, after, tmp_path / str(len(passes))))
    assert errors[1] < 0.5 * errors[0]


def _error_on(rows: Floats, model: object, after: object, folder: Path) -> float:
    import onnx_ir as ir
    from tests.passes.graphs import relative_error, run_model

    assert isinstance(model, ir.Model)
    assert isinstance(after, ir.Model)
    wanted = run_model(model, folder / "before", {"x": rows})
    seen = run_model(after, folder / "after", {"x": rows})
    return max(relative_error(one, other) for one, other in zip(seen, wanted, strict=True))


def test_recorded_rows_follow(context: PassContext, seed: int) -> None:
    """What later passes take for the linear's input is what the graph gives it."""
    after = SplitSubspace(directions=8)(model_of(LINEARS), context).model
    (linear, *_) = find_linears(after.graph)
    left = rows_of("a-pass", linear, context).fit
    whole = uneven_rows(seed + 7)
    assert np.linalg.norm(left) < 0.7 * np.linalg.norm(whole)
    assert left.shape == whole.shape


def test_after_a_branch_it_is_too_late(context: PassContext) -> None:
    model = SplitLowRank(calibrated=False, max_ratio=0.5)(model_of(LINEARS), PassContext()).model
    with pytest.raises(PassError, match="has a low-rank branch already"):
        SplitSubspace()(model, context)
