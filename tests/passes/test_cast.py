from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import model_of, operators

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.cast import Cast
from latentc.passes.model_file import write_model
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank

GRAPHS = {
    "linear": """g (float[B,64] x) => (float[B,32] y) <float[64,32] w, float[32] b> {
        product = MatMul (x, w)
        y = Add (product, b) }""",
    "convolution": """g (float[B,4,h,w] x) => (float[B,8,12,12] y)
        <float[8,4,3,3] kernel, float[8] scale, float[8] shift, float[4] sizes = {1.0, 1.0, 2.0, 2.0}> {
        inner = Conv <pads = [1, 1, 1, 1]> (x, kernel)
        normal = GroupNormalization <num_groups = 2> (inner, scale, shift)
        y = Resize <mode = "nearest"> (normal, , sizes) }""",
    "time": """g (float[B] time) => (float[B,64] y)
        <float[1,64] frequencies, float[64,64] w, int64[1] axes = {1}> {
        column = Unsqueeze (time, axes)
        angle = Mul (column, frequencies)
        wave = Cos (angle)
        y = MatMul (wave, w) }""",
    "mask": """g (float[B,T,T] x) => (float[B,T,T] y)
        <float low = {-3.4028234663852886e+38}, float zero = {0.0}> {
        over = Less (x, zero)
        mask = Where (over, low, zero)
        sum = Add (x, mask)
        y = Softmax (sum) }""",
}


@pytest.mark.parametrize("text", GRAPHS.values(), ids=list(GRAPHS))
def test_the_numbers_are_those_of_float16(text: str, tmp_path: Path, seed: int) -> None:
    model = model_of(text)
    after = Cast()(model, PassContext()).model
    # float16 has 11 bits: 2**-11 = 0.0005 a rounding, a few of them in a row
    assert largest_error(model, after, tmp_path, seed) < 2e-3


@pytest.mark.parametrize("text", GRAPHS.values(), ids=list(GRAPHS))
def test_twice_is_once(text: str) -> None:
    assert_twice_is_once(Cast(optional=True), model_of(text), PassContext())


def test_quantized_linears_lose_their_casts(tmp_path: Path, seed: int) -> None:
    context = PassContext()
    model = model_of("g (float[B,128] x) => (float[B,128] y) <float[128,128] w> { y = MatMul (x, w) }")
    for step in (SplitLowRank(calibrated=False, max_ratio=0.4, refinements=0), QuantizeInt4()):
        model = step(model, context).model
    after = Cast()(model, context).model
    assert operators(after) == [
        *("Cast", "DequantizeLinear", "DequantizeLinear", "DequantizeLinear"),
        *("MatMul", "MatMul", "MatMul", "Add", "Cast"),
    ]
    assert largest_error(model, after, tmp_path, seed) < 2e-3


def test_inputs_and_outputs_keep_their_types() -> None:
    after = Cast()(model_of(GRAPHS["linear"]), PassContext()).model
    assert [value.dtype for value in (*after.graph.inputs, *after.graph.outputs)] == [ir.DataType.FLOAT] * 2


def test_a_skipped_node_stays_float32(tmp_path: Path) -> None:
    model = model_of(
        """g (float[B,2] x) => (float[B,2] y) <float[2] w = {70000.0, 1.0}, float[2] v> {
        p = Mul (x, w)
        y = Mul (p, v) }"""
    )
    with pytest.raises(PassError) as caught:
        write_model(Cast()(model, PassContext()).model, tmp_path)
    assert str(caught.value) == (
        "cast: w: holds 70000, float16 ends at 65504\n"
        "fix: keep the node that reads it in float32 with the option skip"
    )
    model.graph[0].name = "first"
    result = Cast(skip=("first",))(model, PassContext())
    write_model(result.model, tmp_path)
    assert [refusal.where for refusal in result.refusals] == ["p"]


def test_constants_beyond_float16_that_mask_become_its_limits() -> None:
    after = Cast()(model_of(GRAPHS["mask"]), PassContext()).model
    low = after.graph.initializers["low.float16"].const_value
    assert low is not None
    assert float(np.asarray(low.numpy())) == -65504.0
