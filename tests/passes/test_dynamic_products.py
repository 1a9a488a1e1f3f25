from pathlib import Path

import numpy as np
import pytest
from tests.passes.graphs import inputs_of, model_of, relative_error, run_model

from latentc.passes.base import PassContext
from latentc.passes.dynamic_products import DynamicProducts
from latentc.passes.low_rank import BranchType
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank

SIZES = {"B": 2, "T": 9, "h": 6, "w": 10}
LINEARS = """g (float[B,T,128] x) => (float[B,T,96] z) <float[128,128] w, float[128] b, float[128,96] v> {
    inner = MatMul (x, w)
    y = Add (inner, b)
    z = MatMul (y, v) }"""
CONVOLUTIONS = """g (float[B,16,h,w] x) => (float[B,8,h,w] y)
    <float[24,16,3,3] w, float[24] b, float[32,24,3,3] v, float[8,32,2,4] u> {
    inner = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    half = Conv <pads = [0, 1, 1, 0], strides = [2, 1]> (inner, v)
    y = Conv (half, u) }"""


def run(text: str, step: DynamicProducts, folder: Path) -> float:
    """How far the outputs are from those in floats."""
    model = model_of(text)
    feeds = inputs_of(model, SIZES, seed=3)
    result = step(model, PassContext())
    (wanted,) = run_model(model, folder / "before", feeds)
    (seen,) = run_model(result.model, folder / "after", feeds)
    return relative_error(seen, wanted)


# 8 bits of activations and 8 of weights, twice or three times in a row: each adds about 0.007
@pytest.mark.parametrize("text", [LINEARS, CONVOLUTIONS], ids=["linears", "convolutions"])
def test_numbers_stay_within_8_bits(text: str, tmp_path: Path) -> None:
    assert run(text, DynamicProducts(floats=True), tmp_path) < 0.03


def test_a_second_run_changes_nothing() -> None:
    once = DynamicProducts(floats=True)(model_of(CONVOLUTIONS), PassContext()).model
    assert DynamicProducts(floats=True, optional=True)(once, PassContext()).changes == ()


def test_a_branch_is_added_to_its_weight(tmp_path: Path) -> None:
    model = model_of(LINEARS)
    split = SplitLowRank(rank=8, refinements=0, calibrated=False, branch=BranchType.FLOAT16)
    quantized = QuantizeInt4()(split(model, PassContext()).model, PassContext()).model
    result = DynamicProducts()(quantized, PassContext())
    operators = [node.op_type for node in result.model.graph]
    assert operators == ["DynamicQuantizeLinear", "MatMulIntegerToFloat"] * 2
    feeds = inputs_of(model, SIZES, seed=5)
    (wanted,) = run_model(quantized, tmp_path / "before", feeds)
    (seen,) = run_model(result.model, tmp_path / "after", feeds)
    # against the 4-bit weights with their branches, so that only 8-bit rounding is left
    assert relative_error(seen, wanted) < 0.03


def test_an_activation_is_rounded_once_for_all_its_readers() -> None:
    text = """g (float[B,T,64] x) => (float[B,T,32] y, float[B,T,32] z) <float[64,32] w, float[64,32] v> {
        y = MatMul (x, w)
        z = MatMul (x, v) }"""
    model = DynamicProducts(floats=True)(model_of(text), PassContext()).model
    assert [node.op_type for node in model.graph].count("DynamicQuantizeLinear") == 1


def test_a_weight_that_two_read_is_rounded_once() -> None:
    text = """g (float[B,T,64] x) => (float[B,T,64] z) <float[64,64] w> {
        y = MatMul (x, w)
        z = MatMul (y, w) }"""
    model = DynamicProducts(floats=True)(model_of(text), PassContext()).model
    names = [name for name in model.graph.initializers if name.startswith("w")]
    assert sorted(names) == ["w.int8", "w.scale"]
    codes = model.graph.initializers["w.int8"].const_value
    assert codes is not None
    assert codes.numpy().dtype == np.int8
