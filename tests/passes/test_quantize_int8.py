from pathlib import Path

import numpy as np
import pytest
from tests.passes.four_gates import SIZES, assert_twice_is_once, largest_error
from tests.passes.graphs import inputs_of, model_of, operators

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.cast import Cast
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8 import QuantizeInt8

CONVOLUTIONS = """g (float[B,4,h,w] x) => (float[B,8,h,w] y)
    <float[16,4,3,3] first, float[16] bias, float[16] scale, float[16] shift, float[8,16,1,1] last> {
    inner = Conv <pads = [1, 1, 1, 1]> (x, first, bias)
    normal = GroupNormalization <num_groups = 4> (inner, scale, shift)
    gate = Sigmoid (normal)
    active = Mul (normal, gate)
    y = Conv (active, last) }"""


@pytest.fixture
def recorded(tmp_path: Path) -> PassContext:
    folder = tmp_path / "recorded"
    folder.mkdir()
    for index in range(4):
        np.savez(folder / f"{index}.npz", **inputs_of(model_of(CONVOLUTIONS), SIZES, index))  # type: ignore[arg-type] # stubs
    return PassContext(calibration=folder)


def test_the_loss_is_that_of_eight_bits(recorded: PassContext, tmp_path: Path, seed: int) -> None:
    model = model_of(CONVOLUTIONS)
    after = QuantizeInt8()(model, recorded).model
    # weights and activations in steps of 1/127 of their largest: about 1 % each after two layers
    assert 1e-4 < largest_error(model, after, tmp_path, seed) < 0.03
    assert operators(after).count("QuantizeLinear") == 2
    assert {loss.layer for loss in recorded.ledger.losses} == {"first", "last"}


def test_twice_is_once(recorded: PassContext) -> None:
    assert_twice_is_once(QuantizeInt8(), model_of(CONVOLUTIONS), recorded)


def test_convolutions_behind_a_group_normalization_are_found(recorded: PassContext) -> None:
    # ONNX infers no type behind GroupNormalization, and NNCF quantizes nothing without a type
    result = QuantizeInt8()(model_of(CONVOLUTIONS), recorded)
    assert [change.where for change in result.changes] == ["first", "last"]


LINEAR = "g (float[B,64] x) => (float[B,64] y) <float[64,64] w> { y = MatMul (x, w) }"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "FOLDER: holds no calibration data (*.npz)\nfix: build the calibration step again"),
        (
            {"0.npz": b"no zip"},
            "FOLDER/0.npz: is no record of the inputs x: This file contains pickled (object) data. If you "
            "trust the file you can load it unsafely using the `allow_pickle=` keyword argument or "
            "`pickle.load()`."
            "\nfix: build the calibration again",
        ),
    ],
)
def test_refused_calibration(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PassError) as caught:
        QuantizeInt8()(model_of(CONVOLUTIONS), PassContext(calibration=tmp_path))
    assert str(caught.value) == message.replace("FOLDER", str(tmp_path))


def test_int4_comes_after(recorded: PassContext) -> None:
    quantized = QuantizeInt4()(model_of(LINEAR), recorded).model
    with pytest.raises(PassError) as caught:
        QuantizeInt8()(quantized, recorded)
    assert str(caught.value) == (
        "quantize-int8: 'w' is split or quantized to INT4 already\n"
        "fix: put quantize-int8 before split-low-rank and quantize-int4"
    )


def test_cast_comes_after(recorded: PassContext) -> None:
    with pytest.raises(PassError) as caught:
        QuantizeInt8()(Cast()(model_of(CONVOLUTIONS), recorded).model, recorded)
    assert str(caught.value) == (
        "quantize-int8: 'first.float16' is stored as float16, wanted float32\n"
        "fix: put quantize-int8 before cast"
    )
