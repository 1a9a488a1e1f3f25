from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.passes.graphs import inputs_of, model_of, run_folder

from latentc.errors import InternalError, ModelError
from latentc.passes.model_file import read_model, write_model
from latentc.passes.weights import initializer

LINEAR = """g (float[B,64] x) => (float[B,64] y) <float[64,64] w, float[64,64] unread, float[64] b> {
    sum = Add (x, b)
    y = MatMul (sum, w) }"""


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    model = model_of(LINEAR)
    write_model(model, tmp_path)
    again = read_model(tmp_path)
    assert [node.op_type for node in again.graph] == ["Add", "MatMul"]
    for name in ("w", "b"):
        seen, wanted = again.graph.initializers[name].const_value, model.graph.initializers[name].const_value
        assert seen is not None
        assert wanted is not None
        np.testing.assert_array_equal(seen.numpy(), wanted.numpy())


def test_the_form(tmp_path: Path) -> None:
    write_model(model_of(LINEAR), tmp_path)
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert (proto.ir_version, [(entry.domain, entry.version) for entry in proto.opset_import]) == (
        10,
        [("", 21)],
    )
    # in the order of use; the small one inline, the one that nothing reads left out
    assert [(tensor.name, tensor.data_location) for tensor in proto.graph.initializer] == [("b", 0), ("w", 1)]
    assert (tmp_path / "model.onnx.data").stat().st_size == 64 * 64 * 4
    made = {name for node in proto.graph.node for name in node.output}
    assert made & {value.name for value in proto.graph.value_info} == set()


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_model(model_of(LINEAR), tmp_path / name)
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_writing_reading_and_writing_gives_the_same_bytes(tmp_path: Path) -> None:
    write_model(model_of(LINEAR), tmp_path / "one")
    write_model(read_model(tmp_path / "one"), tmp_path / "two")
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@given(arrays(np.int8, st.tuples(st.integers(1, 70), st.integers(1, 9)), elements=st.integers(-8, 7)))
def test_int4_codes_survive_the_file(tmp_path_factory: pytest.TempPathFactory, codes: np.ndarray) -> None:
    import ml_dtypes

    folder = tmp_path_factory.mktemp("int4")
    model = model_of("g (float[B,4] x) => (float[B,4] y) { y = Identity (x) }")
    packed = initializer(model.graph, "codes", ir.tensor(codes.astype(ml_dtypes.int4)))
    model.graph.outputs.append(packed)
    write_model(model, folder)
    tensor = read_model(folder).graph.initializers["codes"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(np.asarray(tensor.numpy()).astype(np.int8), codes)


def test_weights_are_pulled_one_after_another(tmp_path: Path) -> None:
    model = model_of(LINEAR)
    pulled: list[str] = []
    for name in ("b", "w"):
        value = model.graph.initializers[name]
        tensor = value.const_value
        assert tensor is not None

        def pull(name: str = name, tensor: ir.TensorProtocol = tensor) -> ir.TensorProtocol:
            pulled.append(name)
            return tensor

        value.const_value = ir.LazyTensor(pull, ir.DataType.FLOAT, ir.Shape(tensor.shape.numpy()), name=name)
    seen: list[tuple[float, str]] = []
    write_model(model, tmp_path, lambda done, name: seen.append((round(done, 3), name)))
    assert pulled == ["b", "w"]
    assert seen == [(0.0, "b")]  # small neighbours are written together


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_model(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/model.onnx: there is no such file\nfix: build this component again"
    )


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError) as caught:
        read_model(tmp_path)
    assert str(caught.value) == (f"{tmp_path}/model.onnx: is no ONNX model\nfix: build this component again")


def test_short_data_is_named(tmp_path: Path) -> None:
    write_model(model_of(LINEAR), tmp_path)
    data = tmp_path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError) as caught:
        read_model(tmp_path)
    assert str(caught.value) == (
        f"{data}: has 16383 bytes, 'w' ends at byte 16384\nfix: build this component again"
    )


def test_a_program_that_breaks_its_promise_is_a_defect_of_ours(tmp_path: Path) -> None:
    model = model_of(LINEAR)
    short = ir.LazyTensor(
        lambda: ir.tensor(np.zeros((64, 63), np.float32)), ir.DataType.FLOAT, ir.Shape([64, 64]), name="w"
    )
    model.graph.initializers["w"].const_value = short
    with pytest.raises(InternalError) as caught:
        write_model(model, tmp_path)
    assert str(caught.value) == "w: its program gave 16128 bytes, its type wants 16384"


def test_the_model_itself_is_left_alone(tmp_path: Path, seed: int) -> None:
    model = model_of(LINEAR)
    write_model(model, tmp_path / "one")
    assert sorted(model.graph.initializers) == ["b", "unread", "w"]
    write_model(model, tmp_path / "two")
    feeds = inputs_of(model, {"B": 2}, seed)
    np.testing.assert_array_equal(
        run_folder(tmp_path / "one", feeds)[0], run_folder(tmp_path / "two", feeds)[0]
    )
