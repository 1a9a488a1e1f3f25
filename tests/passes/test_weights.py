import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.weights import (
    JointTensors,
    constant_floats,
    find_convolutions,
    find_linears,
    lazy,
    matches,
    own_floats,
    read,
    replace_initializer,
)

GRAPH = """g (float[B,8] x, float[8,8] given) => (float[B,8] y, float[B,8,8] z)
    <float[8,8] w, float[8,8] v, float[1,1,3,3] kernel, int64[1] axes = {1}> {
    one = MatMul (x, w)
    two = MatMul (one, given)
    three = MatMul (two, w)
    y = Add (three, v)
    four = Unsqueeze (y, axes)
    five = Unsqueeze (four, axes)
    six = Conv <pads = [1, 1, 1, 1]> (five, kernel)
    z = Squeeze (six, axes) }"""


def test_linears_are_found_once_with_all_their_nodes() -> None:
    (linear,) = find_linears(model_of(GRAPH).graph)
    assert (linear.name, linear.shape) == ("w", (8, 8))
    assert [node.outputs[0].name for node in linear.nodes] == ["one", "three"]


def test_convolutions_are_found() -> None:
    (convolution,) = find_convolutions(model_of(GRAPH).graph)
    assert (convolution.name, convolution.shape) == ("kernel", (1, 1, 3, 3))


def test_patterns() -> None:
    assert matches("down.0.attn.to_q.weight", ("*.to_q.*",))
    assert not matches("down.0.attn.to_Q.weight", ("*.to_q.*",))


def test_a_lazy_program_runs_when_asked_and_each_time() -> None:
    calls: list[int] = []

    def program(values: np.ndarray) -> np.ndarray:
        calls.append(1)
        return values.T

    tensor = lazy(ir.tensor(np.ones((2, 3), np.float32)), program, (3, 2), ir.DataType.FLOAT)
    assert calls == []
    assert (tensor.numpy().shape, tensor.numpy().shape, len(calls)) == ((3, 2), (3, 2), 2)


def test_joint_tensors_are_computed_once_and_dropped_after_the_last() -> None:
    calls: list[int] = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(3.0), "b": np.array(2.0)}

    joint = JointTensors(compute, {"a": (ir.DataType.FLOAT, (3,)), "b": (ir.DataType.FLOAT16, ())}, (), 0)
    a, b = joint.tensor("a"), joint.tensor("b")
    assert calls == []
    np.testing.assert_array_equal(a.numpy(), np.arange(3, dtype=np.float32))
    assert list(joint._results) == ["b"]
    number = b.numpy()
    assert (number.shape, str(number.dtype)) == ((), "float16")
    assert joint._results == {}
    assert len(calls) == 1
    a.numpy()
    assert len(calls) == 2


def test_codes_are_packed_the_first_in_the_lower_half() -> None:
    codes = np.array([[1, -2, 3], [-8, 7, -1]], np.int8)
    joint = JointTensors(lambda: {"codes": codes.T}, {"codes": (ir.DataType.INT4, (3, 2))}, (), 0)
    packed = joint.tensor("codes")
    assert packed.tobytes() == bytes([0x81, 0x7E, 0xF3])
    np.testing.assert_array_equal(np.asarray(joint.tensor("codes").numpy()).astype(np.int8), codes.T)


def test_values_may_be_overwritten_by_whoever_asked() -> None:
    source = ir.tensor(np.ones((2, 3), np.float32))
    own_floats(lazy(source, np.transpose, (3, 2), ir.DataType.FLOAT), "w", "p")[:] = 5
    own_floats(source, "w", "p")[:] = 5
    assert (source.numpy() == 1).all()
    with pytest.raises(PassError, match="'w' holds NaN or infinity"):
        own_floats(ir.tensor(np.array([1.0, np.inf], np.float32)), "w", "p")
    large = np.full(3, 1e30, np.float32)  # the sum of whose squares is none
    np.testing.assert_array_equal(own_floats(ir.tensor(large), "w", "p"), large)


def test_a_replaced_initializer_keeps_name_and_readers() -> None:
    model = model_of(GRAPH)
    new = replace_initializer(
        model.graph, model.graph.initializers["w"], ir.tensor(np.zeros((8, 8), np.float32))
    )
    assert new.name == "w"
    assert len(new.uses()) == 2
    assert not read(new.const_value or ir.tensor([1.0])).any()


def test_what_is_made_of_constants_is_known() -> None:
    model = model_of("""g (float[B,8] x) => (float[B,6] y) <int8[6,8] codes, float[8] steps, float[8,6] v> {
        wide = DequantizeLinear <axis = 1> (codes, steps)
        turned = Transpose <perm = [1, 0]> (wide)
        odd = Exp (turned)
        one = Add (odd, v)
        y = MatMul (x, one) }""")
    values = {value.name: value for node in model.graph for value in node.outputs}
    codes, steps = (model.graph.initializers[name] for name in ("codes", "steps"))
    exact = constant_floats(codes)
    sizes = constant_floats(steps)
    assert exact is not None
    assert sizes is not None
    np.testing.assert_array_equal(constant_floats(values["turned"]), (exact * sizes).T)
    assert constant_floats(values["odd"]) is None
    assert constant_floats(model.graph.inputs[0]) is None
    assert constant_floats(None) is None
