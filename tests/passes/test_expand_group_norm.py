from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import model_of

from latentc.passes.base import PassContext
from latentc.passes.expand_group_norm import ExpandGroupNorm
from latentc.passes.model_file import write_model

GRAPH = """g (float[B,8,h,w] x) => (float[B,8,h,w] y) <float[8,8,1,1] kernel, float[8] scale, float[8] shift> {
    first = GroupNormalization <num_groups = 4, epsilon = 0.00001> (x, scale, shift)
    middle = Conv (first, kernel)
    y = GroupNormalization <num_groups = 2> (middle, scale, shift) }"""


def test_the_function_stays(tmp_path: Path, seed: int) -> None:
    model = model_of(GRAPH)
    after = ExpandGroupNorm()(model, PassContext()).model
    # float32 means and variances of 72 or 144 numbers, summed in another order
    assert largest_error(model, after, tmp_path, seed) < 2e-6


def test_twice_is_once() -> None:
    assert_twice_is_once(ExpandGroupNorm(), model_of(GRAPH), PassContext())


@pytest.mark.parametrize(("expanded", "most_nodes"), [(False, None), (True, 14)])
def test_onnxruntime_runs_fewer_nodes(expanded: bool, most_nodes: int | None, tmp_path: Path) -> None:
    model = model_of(GRAPH)
    if expanded:
        model = ExpandGroupNorm()(model, PassContext()).model
    write_model(model, tmp_path)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    nodes = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert len(nodes) > 24 if most_nodes is None else len(nodes) <= most_nodes
    assert "Cast" not in nodes or most_nodes is None
