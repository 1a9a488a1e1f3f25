from pathlib import Path

import numpy as np
import onnx_ir as ir
from tests.passes.graphs import inputs_of, model_of, relative_error, run_folder
from tests.passes.test_golden import GOLDEN, sections

from latentc.passes.base import PassContext
from latentc.passes.integer_products import IntegerProducts
from latentc.passes.model_file import write_model
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights

GRAPH = sections((GOLDEN / "integer-products" / "convolutions.txt").read_text())["before"]


def test_the_numbers_are_those_of_the_rounded_floats(tmp_path: Path) -> None:
    model = model_of(GRAPH)
    for name in ("x_step", "inner_step", "first_steps", "left_steps", "right_steps"):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        positive = np.abs(value.const_value.numpy()) + np.float32(0.01)
        value.const_value = ir.tensor(positive, name=name)
    result = IntegerProducts()(model, PassContext())
    feeds = inputs_of(model, {"B": 2, "h": 6, "w": 6}, seed=1)
    write_model(model, tmp_path / "before")
    write_model(result.model, tmp_path / "after")
    (before,) = (y.astype(np.float32) for y in run_folder(tmp_path / "before", feeds))
    (after,) = (y.astype(np.float32) for y in run_folder(tmp_path / "after", feeds))
    # sums of at most 144 products of 8-bit codes are exact in both; what is left is one rounding of float32
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * float(np.abs(before).max()))


def test_a_second_run_changes_nothing() -> None:
    once = IntegerProducts()(model_of(GRAPH), PassContext()).model
    again = IntegerProducts(optional=True)(once, PassContext())
    assert again.changes == ()


def test_an_activation_is_rounded_once_for_all_its_readers() -> None:
    model = IntegerProducts()(model_of(GRAPH), PassContext()).model
    operators = [node.op_type for node in model.graph]
    assert (operators.count("QuantizeLinear"), operators.count("MatMulIntegerToFloat")) == (2, 3)
    assert "DequantizeLinear" not in operators


LINEARS = """g (float[B,T,128] x) => (float[B,T,64] y, float[B,T,32] z) <float[128,64] w, float[128,32] v> {
    y = MatMul (x, w)
    z = MatMul (x, v) }"""


def test_linears_are_multiplied_as_integers(tmp_path: Path) -> None:
    model = model_of(LINEARS)
    sizes = {"B": 2, "T": 3}
    (tmp_path / "records").mkdir()
    for number in range(3):
        np.savez(tmp_path / "records" / f"{number}.npz", **inputs_of(model, sizes, number))  # type: ignore[arg-type] # stubs
    context = PassContext(calibration=tmp_path / "records")
    static = QuantizeInt8Weights(only=("*",), static=True)(model, context).model
    result = IntegerProducts()(static, PassContext())
    operators = [node.op_type for node in result.model.graph]
    assert (operators.count("QuantizeLinear"), operators.count("MatMulIntegerToFloat")) == (1, 2)
    assert "DequantizeLinear" not in operators
    feeds = inputs_of(model, sizes, seed=7)
    write_model(static, tmp_path / "before")
    write_model(result.model, tmp_path / "after")
    for before, after in zip(
        run_folder(tmp_path / "before", feeds), run_folder(tmp_path / "after", feeds), strict=True
    ):
        assert relative_error(after, before) < 1e-6


def test_linears_with_float_inputs_stay() -> None:
    quantized = QuantizeInt8Weights(only=("*",))(model_of(LINEARS), PassContext()).model
    assert IntegerProducts(optional=True)(quantized, PassContext()).changes == ()
