from pathlib import Path

import numpy as np
import pytest
from tests.passes.four_gates import SIZES, assert_twice_is_once, largest_error
from tests.passes.graphs import inputs_of, model_of, run_folder

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.low_rank import BranchType
from latentc.passes.model_file import write_model
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weight_bytes import weigh

LINEARS = """g (float[B,T,128] x) => (float[B,T,256] y, float[B,T,128] z)
    <float[128,256] w, float[256] b, float[256,128] v> {
    product = MatMul (x, w)
    y = Add (product, b)
    z = MatMul (y, v) }"""


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


def test_no_calibration_is_an_error() -> None:
    with pytest.raises(PassError) as caught:
        SplitLowRank()(model_of(LINEARS), PassContext())
    assert str(caught.value) == (
        "split-low-rank: needs calibration data, and there is none\nfix: give the recipe a calibration"
    )
