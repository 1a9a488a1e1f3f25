"""Graphs for the tests of passes: from ONNX's text syntax, with seeded weights, run by onnxruntime.

A weight is declared like an inner value, ``<float[64,32] w>``; what no node makes is given values here.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from latentc.passes.base import Pass, PassContext, PassResult
from latentc.passes.model_file import write_model
from latentc.passes.weights import Array, Floats

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def model_of(text: str) -> ir.Model:
    """Parse ``text``, without the head, and give its weights standard normal values / sqrt(their rows)."""
    proto = onnx.parser.parse_model(HEAD + text)
    made = {name for node in proto.graph.node for name in node.output}
    known = made | {value.name for value in proto.graph.input}
    for value in list(proto.graph.value_info):
        if value.name not in known:
            proto.graph.value_info.remove(value)
            sides = tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
            drawn = values(value.name, sides)
            if value.type.tensor_type.elem_type == onnx.TensorProto.INT8:
                drawn = np.clip(np.rint(drawn * 100), -127, 127).astype(np.int8)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(drawn, value.name))
    return ir.from_proto(proto)


def values(name: str, sides: tuple[int, ...]) -> Floats:
    """Normal values, the same for the same name and shape."""
    seed = int.from_bytes(hashlib.sha256(f"{name}{sides}".encode()).digest()[:4], "little")
    drawn = np.random.default_rng(seed).standard_normal(sides)
    return np.asarray(drawn / np.sqrt(sides[0] if len(sides) > 1 else 1), dtype=np.float32)


def run_pass(text: str, step: Pass, context: PassContext | None = None) -> PassResult:
    return step(model_of(text), context or PassContext())


def inputs_of(model: ir.Model, sizes: dict[str, int], seed: int) -> dict[str, Array]:
    """Random inputs for ``model``; dynamic axes are as long as ``sizes`` says."""
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        sides = [side if isinstance(side, int) else sizes[str(side)] for side in value.shape or ()]
        if value.dtype is ir.DataType.INT64:
            feeds[value.name or ""] = generator.integers(0, 8, sides)
        else:
            feeds[value.name or ""] = generator.standard_normal(sides).astype(np.float32)
    return feeds


def run_folder(folder: Path, feeds: dict[str, Array]) -> list[Array]:
    """Outputs with onnxruntime's own optimizations off, so that they are of the graph as written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def run_model(model: ir.Model, folder: Path, feeds: dict[str, Array]) -> list[Array]:
    """Write ``model`` into ``folder`` (which checks it with ONNX's checker) and run it."""
    write_model(model, folder)
    return run_folder(folder, feeds)


def relative_error(seen: Array, wanted: Array) -> float:
    """‖seen - wanted‖ / ‖wanted‖."""
    wide = wanted.astype(np.float64)
    return float(np.linalg.norm(seen.astype(np.float64) - wide) / np.linalg.norm(wide))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]
