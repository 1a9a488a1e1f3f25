"""A side path is added after the bias, and two of them stand beside one linear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import inputs_of, model_of, relative_error, run_model, values

from latentc.passes.base import PassContext
from latentc.passes.branch_nodes import add_beside, branch_product
from latentc.passes.dequantized import dequantized
from latentc.passes.low_rank import BranchType
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weights import find_linears, initializer, name_of, read_floats

LINEAR = """g (float[B,16] x) => (float[B,8] y) <float[16,8] w, float[8] b> {
    product = MatMul (x, w)
    y = Add (product, b) }"""


def test_two_beside_one(tmp_path: Path, seed: int) -> None:
    model = model_of(LINEAR)
    (linear,) = find_linears(model.graph)
    codes = np.random.default_rng(seed).integers(-127, 128, (16, 8)).astype(np.int8)
    steps = np.full(8, 0.01, np.float16)
    for number in (1, 2):
        stored = initializer(model.graph, f"codes{number}", ir.tensor(codes))
        scale = initializer(model.graph, f"steps{number}", ir.tensor(steps))
        wide = dequantized(model.graph, linear.nodes[0], stored, scale, f"wide{number}")
        add_beside(
            model.graph,
            linear.nodes[0],
            ((ir.node("MatMul", [linear.nodes[0].inputs[0], wide]), "side"),),
            "w",
        )
    feeds = inputs_of(model, {"B": 3}, seed)
    (seen,) = run_model(model, tmp_path, feeds)
    whole = values("w", (16, 8)) + 2 * codes.astype(np.float32) * steps.astype(np.float32)
    wanted = feeds["x"].astype(np.float64) @ whole + values("b", (8,))
    assert relative_error(seen, wanted) < 1e-5  # sums of 16 in float32, some of which cancel
    assert [name_of(output) for output in model.graph.outputs] == ["y"]
    assert len(list(find_linears(model.graph))) == 1


@pytest.mark.parametrize("branch", list(BranchType))
def test_the_product_of_a_branch_and_the_rest_are_the_weight(branch: BranchType) -> None:
    model = model_of("g (float[B,128] x) => (float[B,64] y) <float[128,64] w> { y = MatMul (x, w) }")
    (whole,) = find_linears(model.graph)
    assert not branch_product(whole).any()
    split = SplitLowRank(rank=8, max_ratio=0.6, branch=branch, calibrated=False)(model, PassContext()).model
    (linear,) = find_linears(split.graph)
    tensor = linear.weight.const_value
    assert tensor is not None
    product = branch_product(linear)
    assert np.linalg.matrix_rank(product.astype(np.float64), tol=1e-4) == 8
    # one float32 subtraction when it was split, and one addition here
    np.testing.assert_allclose(read_floats(tensor) + product, values("w", (128, 64)), atol=1e-6)


def test_linears_that_share_a_right_factor_have_products_of_their_own() -> None:
    model = model_of("""g (float[B,128] x) => (float[B,64] y, float[B,64] z)
        <float[128,64] w, float[128,64] v> {
        y = MatMul (x, w)
        z = MatMul (x, v) }""")
    step = SplitLowRank(rank=8, max_ratio=0.6, calibrated=False, shared=True)
    for linear in find_linears(step(model, PassContext()).model.graph):
        tensor = linear.weight.const_value
        assert tensor is not None
        whole = read_floats(tensor) + branch_product(linear)
        np.testing.assert_allclose(whole, values(linear.name, (128, 64)), atol=1e-6)  # as above
