from pathlib import Path

import numpy as np
import onnx_ir as ir
from tests.passes.graphs import model_of

from latentc.passes.base import PassContext
from latentc.passes.cast import Cast
from latentc.passes.low_rank import BranchType
from latentc.passes.model_file import read_model, write_model
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weight_bytes import WeightBytes, weigh
from latentc.passes.weights import OWN_CONSTANTS, initializer

LINEAR = """g (float[B,256] x) => (float[B,128] y) <float[256,128] w, float[128] b> {
    product = MatMul (x, w)
    y = Add (product, b) }"""
FP16 = 256 * 128 * 2
CODES_AND_STEPS = 256 * 128 // 2 + 4 * 128 * 2
BRANCH = 8 * (256 + 128) + 8 * 2 + 2


def test_float_weights() -> None:
    assert weigh(model_of(LINEAR)) == WeightBytes(2 * FP16 + 512, 0, 0, FP16 + 256)


def test_int4_weights_and_their_branch_before_and_after_the_file_and_the_cast(tmp_path: Path) -> None:
    context = PassContext()
    split = SplitLowRank(rank=8, max_ratio=0.5, calibrated=False, refinements=0)(model_of(LINEAR), context)
    model = QuantizeInt4()(split.model, context).model
    quantized = CODES_AND_STEPS + BRANCH
    wanted = WeightBytes(quantized + 512, quantized, FP16, FP16 + 256)
    assert weigh(model) == wanted
    write_model(model, tmp_path)
    assert weigh(read_model(tmp_path)) == wanted
    cast = Cast()(read_model(tmp_path), context).model
    assert weigh(cast) == WeightBytes(quantized + 256, quantized, FP16, FP16 + 256)


def test_a_float16_branch() -> None:
    context = PassContext()
    step = SplitLowRank(rank=4, max_ratio=0.5, branch=BranchType.FLOAT16, calibrated=False, refinements=0)
    model = QuantizeInt4()(step(model_of(LINEAR), context).model, context).model
    assert weigh(model).quantized_bytes == CODES_AND_STEPS + 4 * (256 + 128) * 2


def test_a_vector_that_a_fold_needs_counts_and_one_that_it_changes_does_not(tmp_path: Path) -> None:
    text = """g (float[B,64] x) => (float[B,64] y, float[B,64] z)
    <float[64] own, float[64] shared, float[64,64] w> {
    a = LayerNormalization (x, own)
    b = LayerNormalization (x, shared)
    y = MatMul (a, w)
    z = Mul (b, shared) }"""
    model = model_of(text)
    before = weigh(model)
    norm = model.graph[1]
    norm.replace_input_with(1, initializer(model.graph, "copy", ir.tensor(np.ones(64, np.float32))))
    norm.metadata_props[OWN_CONSTANTS] = "1"
    after = weigh(model)
    assert after.quantized_bytes - before.quantized_bytes == 4 * 64
    assert (after.weight_bytes - before.weight_bytes, after.fp16_bytes) == (4 * 64, before.fp16_bytes)
    write_model(model, tmp_path)
    assert weigh(read_model(tmp_path)) == after
