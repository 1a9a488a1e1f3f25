import numpy as np
import onnx_ir as ir
from tests.passes.graphs import model_of

from latentc.passes.graph_text import graph_text

GRAPH = """g (float[B,64] x) => (float[B,2,32] y) <float[64,64] w, int64[3] shape = {-1, 2, 32}> {
    product = MatMul (x, w)
    y = Reshape <allowzero = 0> (product, shape) }"""


def test_text() -> None:
    model = model_of(GRAPH)
    model.graph[0].metadata_props["mark"] = "here"
    assert graph_text(model) == (
        "latentc graph 1\n"
        "opset ai.onnx 21\n"
        "input x: float32[B,64]\n"
        "weight shape: int64[3] -1 2 32\n"
        "weight w: float32[64,64] norm 8.09 mix +0.10\n"
        "product = MatMul(x, w)  # mark: here\n"
        "y = Reshape(product, shape) {allowzero=0}\n"
        "output y: float32[B,2,32]\n"
    )


def test_a_moved_number_shows() -> None:
    model = model_of(GRAPH)
    value = model.graph.initializers["w"]
    assert value.const_value is not None
    text = graph_text(model)
    value.const_value = ir.tensor(np.roll(np.asarray(value.const_value.numpy()), 1), name="w")
    assert graph_text(model) != text


def test_a_last_bit_does_not_show() -> None:
    model = model_of(GRAPH)
    value = model.graph.initializers["w"]
    assert value.const_value is not None
    text = graph_text(model)
    values = np.asarray(value.const_value.numpy())
    value.const_value = ir.tensor(np.nextafter(values, np.float32(9), dtype=np.float32), name="w")
    assert graph_text(model) == text
