"""Chosen linears become INT8, the others stay, and onnxruntime fuses what came out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import inputs_of, model_of

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.model_file import write_model
from latentc.passes.quantize_activations import QuantizeActivations
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weight_bytes import weigh

LINEAR = """g (float[B,T,128] x) => (float[B,T,64] y) <float[128,64] w, float[64] b> {
    product = MatMul (x, w)
    y = Add (product, b) }"""
EVERYTHING = QuantizeInt8Weights(only=("*",))


def test_twice_is_once() -> None:
    assert_twice_is_once(EVERYTHING, model_of(LINEAR), PassContext())


def test_the_loss_is_that_of_eight_bits(tmp_path: Path, seed: int) -> None:
    model = model_of(LINEAR)
    context = PassContext()
    after = EVERYTHING(model, context).model
    # the largest of 128 normal weights is 2.7 deviations: a step of 0.021, 0.021 / sqrt(12) of the spread
    assert 0.003 < largest_error(model, after, tmp_path, seed) < 0.009
    (loss,) = context.ledger.losses
    assert (loss.layer, loss.pass_name) == ("w", "quantize-int8-weights")
    assert 0.003 < loss.relative_error < 0.009


def test_half_of_fp16_plus_steps() -> None:
    sizes = weigh(EVERYTHING(model_of(LINEAR), PassContext()).model)
    assert (sizes.quantized_bytes, sizes.quantized_fp16_bytes) == (128 * 64 + 2 * 64, 128 * 64 * 2)


def test_onnxruntime_fuses_it_into_one_matmulnbits(tmp_path: Path) -> None:
    write_model(EVERYTHING(model_of(LINEAR), PassContext()).model, tmp_path)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "fused.onnx", load_external_data=False).graph.node
    (fused,) = [node for node in nodes if node.op_type == "MatMulNBits"]
    assert {attribute.name: attribute.i for attribute in fused.attribute}["bits"] == 8
    assert [node.op_type for node in nodes if node.op_type == "MatMul"] == []


def test_a_split_linear_is_left_to_int4() -> None:
    model = SplitLowRank(calibrated=False, max_ratio=0.4)(model_of(LINEAR), PassContext()).model
    with pytest.raises(PassError, match="w: has a low-rank branch, which only INT4 needs"):
        EVERYTHING(model, PassContext())


def test_a_broken_weight(tmp_path: Path) -> None:
    model = model_of(LINEAR)
    broken = np.array(model.graph.initializers["w"].const_value.numpy())  # type: ignore[union-attr] # it has one
    broken[3, 4] = np.nan
    import onnx_ir as ir

    model.graph.initializers["w"].const_value = ir.tensor(broken, name="w")
    after = EVERYTHING(model, PassContext()).model
    with pytest.raises(PassError, match="'w' holds NaN or infinity"):
        write_model(after, tmp_path)


STATIC = QuantizeInt8Weights(only=("*",), static=True)


def recorded(folder: Path, model: ir.Model, **scaled: float) -> PassContext:
    folder.mkdir()
    for number in range(3):
        feeds = inputs_of(model, {"B": 2, "T": 5}, number)
        arrays = {name: array.astype(np.float32) * scaled.get(name, 1) for name, array in feeds.items()}
        np.savez(folder / f"{number}.npz", **arrays)  # type: ignore[arg-type] # stubs
    return PassContext(calibration=folder)


def test_static_activations_lose_eight_bits_too(tmp_path: Path, seed: int) -> None:
    model = model_of(LINEAR)
    context = recorded(tmp_path / "records", model)
    result = STATIC(model, context)
    # the largest of 1280 normal values is 3.3 deviations: a step of 0.026, and the weights' own 0.006
    assert 0.006 < largest_error(model, result.model, tmp_path, seed) < 0.02
    (change,) = result.changes
    assert change.what.startswith(
        "float32[128,64] to int8, a step for each output, activations in steps of 0.0"
    )
    assert_twice_is_once(STATIC, model, context)


def test_static_activations_need_records() -> None:
    with pytest.raises(PassError, match="needs calibration data, and there is none"):
        STATIC(model_of(LINEAR), PassContext())


def test_what_only_zeros_reach_stays(tmp_path: Path) -> None:
    model = model_of(LINEAR)
    optional = QuantizeInt8Weights(only=("*",), static=True, optional=True)
    result = optional(model, recorded(tmp_path / "records", model, x=0))
    assert result.changes == ()
    assert [refusal.why for refusal in result.refusals] == [
        "multiplies nothing but zeros in what was recorded"
    ]


def test_simulated_activations_leave_static_ones_alone(tmp_path: Path) -> None:
    model = model_of(LINEAR)
    context = recorded(tmp_path / "records", model)
    result = QuantizeActivations(bits=8, optional=True)(STATIC(model, context).model, context)
    assert [refusal.why for refusal in result.refusals] == ["its input is rounded already"]
