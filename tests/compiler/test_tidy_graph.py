"""Tidying takes out what only the tracer needed and computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.compiler.tidy_graph import reshape_constant, tidy_graph

TRACED = """
<ir_version: 10, opset_import: ["" : 21]>
traced (float[B,h,w,64] x, float[64] scale) => (float[B,n,64] y)
<int64[1] minus = {-1}, int64[1] width = {64}, float one = {1.0}, int64[1] zero = {0},
 int64[1] end = {9223372036854775807}, int64[1] axis = {0}>
{
   shape = Shape <start = 0, end = 1> (x)
   target = Concat <axis = 0> (shape, minus, width)
   sliced = Slice (x, zero, end, axis)
   flat = Reshape (sliced, target)
   same = Div (flat, one)
   again = CastLike (same, scale)
   y = Mul (again, scale)
}
"""


def traced() -> ir.Model:
    """The graph with the symbolic shapes that the tracer writes."""
    model = ir.from_onnx_text(TRACED)
    shapes: dict[str, list[int | str]] = {
        "shape": [1], "target": [3], "sliced": ["B", "h", "w", 64],
        "flat": ["B", "h*w", 64], "same": ["B", "h*w", 64], "again": ["B", "h*w", 64],
    }  # fmt: skip
    for node in model.graph:
        for value in node.outputs:
            if value.name in shapes:
                value.shape = ir.Shape(shapes[value.name])
                value.dtype = ir.DataType.INT64 if value.name in ("shape", "target") else ir.DataType.FLOAT
    return model


def run(model: ir.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return np.asarray(session.run(None, inputs)[0])


def test_only_the_reshape_and_the_product_are_left() -> None:
    model = traced()
    tidy_graph(model)
    assert [node.op_type for node in model.graph] == ["Reshape", "Mul"]
    target = model.graph[0].inputs[1]
    assert target is not None
    shape = ir.convenience.get_const_tensor(target)
    assert shape is not None
    assert shape.numpy().tolist() == [0, -1, 64]
    random = np.random.default_rng(0)
    inputs = {
        "x": random.standard_normal((2, 3, 5, 64), np.float32),
        "scale": random.standard_normal(64, np.float32),
    }
    np.testing.assert_array_equal(run(model, inputs), run(traced(), inputs))


def test_a_second_run_changes_nothing() -> None:
    model = traced()
    tidy_graph(model)
    once = ir.to_proto(model).SerializeToString()
    tidy_graph(model)
    assert ir.to_proto(model).SerializeToString() == once


@pytest.mark.parametrize(
    ("source", "result", "constant"),
    [
        (("B", "h", "w", 64), ("B", "h*w", 64), (0, -1, 64)),
        (("B", "S", 128), ("B", "S", 4, 32), (0, 0, 4, 32)),
        (("B", "h*w", 64), ("B", "h", "w", 64), None),  # two sizes are unknown
        (("B", 4, "S", 32), ("B*4", "S", 32), None),  # S stands elsewhere: not a copy
        ((6, 4), (3, 8), (3, 8)),
        (("None", 4), ("None", 2, 2), (-1, 2, 2)),
        (("B", 0), ("B", 0), None),  # 0 would mean a copy
    ],
)
def test_reshape_constants(
    source: tuple[int | str, ...], result: tuple[int | str, ...], constant: tuple[int, ...] | None
) -> None:
    assert reshape_constant(source, result) == constant


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_reshape_constant_gives_the_wanted_shape(sizes: list[int], data: st.DataObject) -> None:
    result = list(sizes)
    place = data.draw(st.integers(0, len(sizes) - 1))
    result[place : place + 1] = [sizes[place], 1]
    names: list[int | str] = [f"s{i}" if data.draw(st.booleans()) else size for i, size in enumerate(sizes)]
    wanted: list[int | str] = list(names)
    wanted[place : place + 1] = [names[place], 1]
    constant = reshape_constant(names, wanted)
    if constant is not None:
        shape = [sizes[i] if size == 0 else size for i, size in enumerate(constant)]
        assert np.zeros(sizes).reshape(shape).shape == tuple(result)


def test_a_squeeze_that_torch_takes_for_nothing_is_taken_out() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        squeezed (float[B,S,64] x) => (float[B,S,64] y) <int64[1] second = {1}>
        {
           same = Squeeze (x, second)
           y = Add (same, same)
        }
        """
    )
    same = model.graph[0].outputs[0]
    same.shape, same.dtype = ir.Shape(["B", "S", 64]), ir.DataType.FLOAT
    tidy_graph(model)
    assert [node.op_type for node in model.graph] == ["Add"]
