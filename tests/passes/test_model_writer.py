"""Units may be written in any order and by several threads; the bytes are the same, and are found again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import model_of

from latentc.passes.base import PassContext
from latentc.passes.model_file import read_model, write_model
from latentc.passes.model_writer import DATA_FILE, GRAPH_FILE, ModelWriter, Written
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.weights import initializer

LAYERS = """g (float[B,128] x) => (float[B,128] y) <float[128,128] a, float[128,128] b, float[128] c,
        float[4] d> {
    p = MatMul (x, a)
    q = Add (p, c)
    r = MatMul (q, b)
    s = ReduceSum <keepdims = 0> (d)
    y = Add (r, s) }"""


@pytest.fixture(autouse=True)
def _one_tensor_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentc.passes.layer_units.SMALL_BYTES", 0)


def quantized() -> ir.Model:
    return QuantizeInt4()(model_of(LAYERS), PassContext()).model


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (GRAPH_FILE, DATA_FILE)}


def test_the_order_does_not_show(tmp_path: Path) -> None:
    write_model(quantized(), tmp_path / "wanted")
    writer = ModelWriter(quantized(), tmp_path / "backwards")
    writer.open()
    writer.finish([writer.write(unit) for unit in reversed(writer.units)])
    assert files(tmp_path / "backwards") == files(tmp_path / "wanted")
    together = ModelWriter(quantized(), tmp_path / "together")
    together.open()
    with ThreadPoolExecutor(4) as pool:
        together.finish(list(pool.map(together.write, together.units)))
    assert files(tmp_path / "together") == files(tmp_path / "wanted")


def test_what_was_written_is_known_again(tmp_path: Path) -> None:
    writer = ModelWriter(quantized(), tmp_path)
    writer.open()
    written = [writer.write(unit) for unit in writer.units]
    again = ModelWriter(quantized(), tmp_path)
    assert all(again.holds(unit, one) for unit, one in zip(again.units, written, strict=True))
    data = bytearray((tmp_path / DATA_FILE).read_bytes())
    data[0] ^= 1
    (tmp_path / DATA_FILE).write_bytes(data)
    assert [again.holds(unit, one) for unit, one in zip(again.units, written, strict=True)].count(False) == 1
    other = Written(written[0].digest, {"c": b""})
    assert not again.holds(again.units[1], other)


def test_what_lies_by_columns_is_written_by_rows(tmp_path: Path) -> None:
    model = model_of("g (float[B,4] x) => (float[B,4] y) { y = Identity (x) }")
    values = np.arange(6000, dtype=np.float32).reshape(60, 100).T
    model.graph.outputs.append(initializer(model.graph, "w", ir.Tensor(values)))
    write_model(model, tmp_path)
    tensor = read_model(tmp_path).graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), values)
