from pathlib import Path

import numpy as np
import pytest
from tests.passes.four_gates import SIZES, assert_twice_is_once, largest_error
from tests.passes.graphs import inputs_of, model_of, run_folder

from latentc.errors import PassError
from latentc.passes.allocate import Allocate
from latentc.passes.base import PassContext
from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.model_file import write_model
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weight_bytes import weigh
from latentc.passes.weights import read_floats

LINEARS = """g (float[B,T,128] x) => (float[B,T,256] y, float[B,T,128] z)
    <float[128,256] w, float[256] b, float[256,128] v> {
    product = MatMul (x, w)
    y = Add (product, b)
    z = MatMul (y, v) }"""

JOINT = """g (float[B,T,128] x) => (float[B,T,128] q, float[B,T,64] k, float[B,T,128] z)
    <float[128,128] wq, float[128] b, float[128,64] wk, float[128,128] wz> {
    product = MatMul (x, wq)
    q = Add (product, b)
    k = MatMul (x, wk)
    z = MatMul (q, wz) }"""


def recorded(folder: Path) -> Path:
    """Inputs that lie near eight directions, as those of trained networks do."""
    model = model_of(LINEARS)
    folder.mkdir()
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((8, 128))
    for index in range(4):
        drawn = generator.standard_normal((2, 16, 8)) @ directions
        feeds = inputs_of(model, {**SIZES, "T": 16}, index)
        np.savez(
            folder / f"{index:04d}.npz", x=(drawn + 0.1 * feeds["x"].astype(np.float32)).astype(np.float32)
        )
    return folder


@pytest.mark.parametrize("branch", list(BranchType))
@pytest.mark.parametrize("calibrated", [True, False])
def test_the_function_stays(branch: BranchType, calibrated: bool, tmp_path: Path, seed: int) -> None:
    model = model_of(LINEARS)
    context = PassContext(calibration=recorded(tmp_path / "recorded"))
    after = SplitLowRank(max_ratio=0.5, branch=branch, calibrated=calibrated)(model, context).model
    # the rest is computed in float32 from the branch as stored: what is left is rounding
    assert largest_error(model, after, tmp_path, seed) < 1e-5


def test_twice_is_once() -> None:
    assert_twice_is_once(SplitLowRank(max_ratio=0.5, calibrated=False), model_of(LINEARS), PassContext())


@pytest.mark.parametrize("branch", list(BranchType))
@pytest.mark.parametrize("max_ratio", [0.28, 0.30, 0.35])
def test_the_byte_budget_holds(branch: BranchType, max_ratio: float) -> None:
    context = PassContext()
    split = SplitLowRank(branch=branch, max_ratio=max_ratio, calibrated=False)(model_of(LINEARS), context)
    sizes = weigh(QuantizeInt4()(split.model, context).model)
    assert max_ratio - 0.02 < sizes.quantized_bytes / sizes.quantized_fp16_bytes <= max_ratio


def test_int4_loses_less_with_a_branch_and_less_still_with_recorded_inputs(tmp_path: Path) -> None:
    model = model_of(LINEARS)
    context = PassContext(calibration=recorded(tmp_path / "recorded"))
    with np.load(tmp_path / "recorded" / "0003.npz") as arrays:
        feeds = {"x": arrays["x"]}
    write_model(model, tmp_path / "plain")
    wanted = run_folder(tmp_path / "plain", feeds)[1].astype(np.float64)
    errors = []
    for index, step in enumerate([None, SplitLowRank(calibrated=False), SplitLowRank()]):
        split = model if step is None else step(model, context).model
        write_model(QuantizeInt4()(split, context).model, tmp_path / str(index))
        seen = run_folder(tmp_path / str(index), feeds)[1].astype(np.float64)
        errors.append(np.linalg.norm(seen - wanted) / np.linalg.norm(wanted))
    assert errors[0] > errors[1] > 1.5 * errors[2]


@pytest.mark.parametrize("branch", list(BranchType))
def test_linears_that_read_the_same_share_the_right_factor(
    branch: BranchType, tmp_path: Path, seed: int
) -> None:
    model = model_of(JOINT)
    result = SplitLowRank(rank=8, max_ratio=2.0, branch=branch, shared=True, calibrated=False)(
        model, PassContext()
    )
    weights = result.model.graph.initializers
    assert "wq.right" in weights
    assert "wk.right" not in weights
    assert list(weights["wk.left"].shape or []) == [8, 64]
    assert [change.where for change in result.changes] == ["wq, wk", "wz"]
    assert sum(node.op_type == "MatMul" for node in result.model.graph) == 3 + 2 + 3
    assert largest_error(model, result.model, tmp_path, seed) < 1e-5


def test_a_shared_branch_is_that_of_the_weights_side_by_side(tmp_path: Path) -> None:
    model = model_of(JOINT)
    with_shared = SplitLowRank(rank=8, max_ratio=2.0, shared=True, calibrated=False)
    branch = {
        name: read_floats(value.const_value)
        for name, value in with_shared(model, PassContext()).model.graph.initializers.items()
        if value.const_value is not None
    }
    weights = [
        read_floats(tensor)
        for name in ("wq", "wk")
        if (tensor := model.graph.initializers[name].const_value) is not None
    ]
    wanted = low_rank_branch(np.concatenate(weights, axis=1), 8, BranchType.INT8, 64, 12)
    np.testing.assert_array_equal(branch["wq.right"], wanted.right)
    np.testing.assert_array_equal(np.concatenate([branch["wq.left"], branch["wk.left"]], 1), wanted.left)


@pytest.mark.parametrize("max_ratio", [0.28, 0.30, 0.35])
def test_the_byte_budget_holds_with_shared_factors(max_ratio: float) -> None:
    context = PassContext()
    split = SplitLowRank(max_ratio=max_ratio, shared=True, calibrated=False)(model_of(JOINT), context)
    sizes = weigh(QuantizeInt4()(split.model, context).model)
    assert max_ratio - 0.02 < sizes.quantized_bytes / sizes.quantized_fp16_bytes <= max_ratio


def test_a_planned_linear_keeps_its_own_branch() -> None:
    planned = Allocate(plan=("wq=int4+8", "wk=int4+4", "wz=int4"))(model_of(JOINT), PassContext()).model
    weights = SplitLowRank(shared=True, calibrated=False, max_ratio=2.0)(planned, PassContext()).model.graph
    assert list(weights.initializers["wq.right"].shape or []) == [128, 8]
    assert list(weights.initializers["wk.right"].shape or []) == [128, 4]


def test_no_calibration_is_an_error() -> None:
    with pytest.raises(PassError) as caught:
        SplitLowRank()(model_of(LINEARS), PassContext())
    assert str(caught.value) == (
        "split-low-rank: needs calibration data, and there is none\nfix: give the recipe a calibration"
    )
