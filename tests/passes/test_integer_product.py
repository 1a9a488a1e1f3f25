import numpy as np
import onnx_ir as ir
from tests.passes.graphs import model_of

from latentc.passes.integer_product import Factor, Rounded, multiply
from latentc.passes.weights import initializer

GRAPH = """g (float[B,T,16] x) => (float[B,T,8] y) <float[16,8] w, float[8] b> {
    product = MatMul (x, w)
    y = Add (b, product) }"""


def test_a_bias_goes_into_the_kernel_and_the_name_stays() -> None:
    model = model_of(GRAPH)
    graph = model.graph
    node = graph[0]
    bias = graph.initializers["b"].const_value
    assert bias is not None
    graph.initializers["b"].const_value = ir.tensor(bias.numpy().astype(np.float16), name="b")
    rounded = Rounded(*(ir.Value(name=name) for name in ("codes", "step", "zero")))
    codes = initializer(graph, "codes", ir.tensor(np.zeros((16, 8), np.int8)))
    steps = initializer(graph, "steps", ir.tensor(np.ones(8, np.float32)))
    multiply(graph, node, rounded, Factor(codes, steps), None)
    (product,) = graph
    assert (product.op_type, product.domain) == ("MatMulIntegerToFloat", "com.microsoft")
    assert [None if value is None else value.name for value in product.inputs] == [
        "codes", "codes", "step", "steps", "zero", None, "b.float32"
    ]  # fmt: skip
    assert graph.outputs[0].name == "y"
    assert graph.outputs[0] is product.outputs[0]
    assert model.opset_imports["com.microsoft"] == 1
