from pathlib import Path

from tests.passes.graphs import model_of

from latentc.passes.base import PassContext
from latentc.passes.cast import Cast
from latentc.passes.low_rank import BranchType
from latentc.passes.model_file import read_model, write_model
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weight_bytes import WeightBytes, weigh

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
