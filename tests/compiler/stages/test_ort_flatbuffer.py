from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.compiler.small_component import save_component, small_component, small_inputs

from latentc.compiler.stages.ort_flatbuffer import Table, canonical_ort, read_ort
from latentc.errors import InternalError

_ATTRIBUTES = 10  # the slot of a node's attributes in the schema


def converted(folder: Path) -> bytes:
    """An .ort file as onnxruntime writes it."""
    save_component(small_component(), folder)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "raw.ort")
    options.log_severity_level = 3
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return (folder / "raw.ort").read_bytes()


def outputs(data: bytes) -> np.typing.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    result: np.typing.NDArray[np.float32] = session.run(None, small_inputs())[0]
    return result


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return converted(tmp_path_factory.mktemp("ort"))


def test_many_conversions_become_one_file(tmp_path: Path) -> None:
    raw = [converted(tmp_path / str(number)) for number in range(6)]
    # the reason for this module: were onnxruntime to write one order, it could go
    assert len(set(raw)) > 1
    assert len({canonical_ort(data) for data in raw}) == 1


def test_canonical_file_is_the_same_model(raw: bytes) -> None:
    assert np.array_equal(outputs(canonical_ort(raw)), outputs(raw))


def test_second_time_changes_nothing(raw: bytes) -> None:
    once = canonical_ort(raw)
    assert canonical_ort(once) == once


def test_nothing_is_lost_but_an_attribute_that_older_runtimes_refuse(raw: bytes) -> None:
    before, after = read_ort(raw), read_ort(canonical_ort(raw))
    assert [node.text("name") for node in prepacked(before)] == ["proj.product"]
    assert prepacked(after) == []
    for node in prepacked(before):
        attributes = node.fields[_ATTRIBUTES]
        assert isinstance(attributes, list)
        attributes[:] = [
            item for item in attributes if isinstance(item, Table) and item.text("name") != "weight_prepacked"
        ]
    assert plain(after) == plain(before)


def prepacked(root: Table) -> list[Table]:
    nodes = root.table("model").table("graph").tables("nodes")
    return [
        node
        for node in nodes
        if any(item.text("name") == "weight_prepacked" for item in node.tables("attributes"))
    ]


def test_maps_are_sorted_and_lists_are_not(raw: bytes) -> None:
    graph = read_ort(canonical_ort(raw)).table("model").table("graph")
    names = [tensor.text("name") for tensor in graph.tables("initializers")]
    assert names == sorted(names)
    operators = [node.text("op_type") for node in graph.tables("nodes")]
    assert operators != sorted(operators)


def test_weights_are_aligned(raw: bytes) -> None:
    data = canonical_ort(raw)
    for tensor in read_ort(data).table("model").table("graph").tables("initializers"):
        weight = bytes(tensor.data("raw_data"))
        if len(weight) >= 512:
            assert data.index(weight) % 16 == 0


@pytest.mark.parametrize("data", [b"", b"\x08\x00\x00\x00ONNX", b"\x08\x00"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InternalError, match=r"is no \.ort file"):
        canonical_ort(data)


@pytest.mark.parametrize("missing_bytes", [8, 100, 5000, 20000])
def test_a_truncated_file_is_refused(raw: bytes, missing_bytes: int) -> None:
    with pytest.raises(InternalError, match="ends too early"):
        canonical_ort(canonical_ort(raw)[:-missing_bytes])


def plain(value: object) -> object:
    if isinstance(value, Table):
        return value.kind, {slot: plain(item) for slot, item in sorted(value.fields.items())}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return bytes(value) if isinstance(value, memoryview) else value
