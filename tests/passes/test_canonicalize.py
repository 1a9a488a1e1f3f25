from pathlib import Path

import pytest
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import model_of, operators

from latentc.passes.base import PassContext
from latentc.passes.canonicalize import Canonicalize

GRAPHS = {
    "gemm": """g (float[B,64] x) => (float[B,32] y) <float[32,64] w, float[32] b> {
        y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, b) }""",
    "shared by two Gemms": """g (float[B,64] x) => (float[B,64] y) <float[64,64] w, float[64] b> {
        one = Gemm <transB = 1> (x, w, b)
        y = Gemm (one, w, b) }""",
    "transposes": """g (float[B,3,h,8] x) => (float[B,h,3,6] y) <float[6,8] w> {
        turned = Transpose <perm = [1, 0]> (w)
        moved = Transpose <perm = [0, 2, 1, 3]> (x)
        y = MatMul (moved, turned) }""",
    "identities": """g (float[B,8] x) => (float[B,8] y, float[B,8] z) <float[8,8] w> {
        same = Identity (x)
        product = MatMul (same, w)
        y = Identity (product)
        z = Cast <to = 1> (same) }""",
    "constants": """g (float[B,8] x) => (float[B,2,4] y) {
        sides = Constant <value_ints = [2, 4]> ()
        batch = Constant <value_ints = [-1]> ()
        shape = Concat <axis = 0> (batch, sides)
        y = Reshape (x, shape) }""",
}


@pytest.mark.parametrize("text", GRAPHS.values(), ids=list(GRAPHS))
def test_the_function_stays(text: str, tmp_path: Path, seed: int) -> None:
    model = model_of(text)
    after = Canonicalize()(model, PassContext()).model
    # float32 sums in another order, or a factor applied to the weight instead of the sum
    assert largest_error(model, after, tmp_path, seed) < 1e-6


@pytest.mark.parametrize("text", GRAPHS.values(), ids=list(GRAPHS))
def test_twice_is_once(text: str) -> None:
    assert_twice_is_once(Canonicalize(), model_of(text), PassContext())


def test_a_weight_read_both_ways_is_kept_both_ways() -> None:
    result = Canonicalize()(model_of(GRAPHS["shared by two Gemms"]), PassContext())
    assert operators(result.model) == ["MatMul", "Add", "MatMul", "Add"]
    assert sorted(result.model.graph.initializers) == ["b", "w", "w.transposed"]


def test_weights_are_not_pulled() -> None:
    import onnx_ir as ir

    model = model_of(GRAPHS["gemm"])
    pulled: list[str] = []

    def pull() -> ir.TensorProtocol:
        pulled.append("w")
        raise AssertionError("a weight was pulled")

    weight = model.graph.initializers["w"]
    weight.const_value = ir.LazyTensor(pull, ir.DataType.FLOAT, ir.Shape([32, 64]), name="w")
    Canonicalize()(model, PassContext())
    assert pulled == []
