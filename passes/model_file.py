"""Model file: a component model folder, ``model.onnx`` with ``model.onnx.data``, to onnx-ir and back.

Reading maps the data and touches no weight. Writing pulls one weight after another through whatever
program the passes composed on it; the same model gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from latentc.errors import InternalError, ModelError, ResourceError
from latentc.passes.weights import constant, name_of, shape_of

GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
OPSET = 21
IR_VERSION = 10
INLINE_BYTES = 1024
"""Tensors smaller than this stay in the graph file, where shape inference can read them."""
_ALIGNMENT_BYTES = 64

Progress = Callable[[float, str], None]
"""Called with the finished fraction (0…1) and what is being written."""


def read_model(folder: Path) -> ir.Model:
    """The model in ``folder``; weights are mapped from its data file when they are asked for.

    Raises:
        ModelError: a file is missing, damaged or shorter than the graph says.
    """
    graph_path = folder / GRAPH_FILE
    if not graph_path.is_file():
        raise ModelError(str(graph_path), "there is no such file", "build this component again")
    import onnx

    try:
        proto = onnx.load(graph_path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, of a package without types
        raise ModelError(str(graph_path), "is no ONNX model", "build this component again") from error
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, folder)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            path = Path(tensor.path)
            size_bytes = path.stat().st_size if path.is_file() else 0
            end_bytes = (tensor.offset or 0) + tensor.nbytes
            if end_bytes > size_bytes:
                raise ModelError(
                    str(path),
                    f"has {size_bytes} bytes, '{value.name}' ends at byte {end_bytes}",
                    "build this component again",
                )
    return model


def write_model(
    model: ir.Model, folder: Path, progress: Progress | None = None, keep_types: bool = False
) -> None:
    """Write ``model`` into ``folder`` as ``model.onnx`` and ``model.onnx.data``; ``model`` stays as it is.

    Initializers are written in the order in which the nodes use them; those that no node uses and no
    output names are left out. One weight is in memory at a time (besides what its program holds). The types
    and shapes of inner values are left out unless ``keep_types``: what is not there cannot be stale.

    Raises:
        InternalError: the ONNX checker refuses the result; that is a defect of a pass.
        ResourceError: the disk is full.
    """
    stored = model.clone()
    for tensor_owner in stored.graph.initializers.values():
        if tensor_owner.const_value is None:
            raise InternalError(name_of(tensor_owner), "is an initializer without a value")
    stored.ir_version = IR_VERSION
    stored.producer_name, stored.producer_version = "latentc", ""
    stored.graph.opset_imports[""] = OPSET
    for node in stored.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output() and not keep_types:
                value.shape = value.type = None
    order = list(_by_first_use(stored.graph))
    total_bytes = max(1, sum(tensor.nbytes for _, tensor in order))
    done_bytes = 0
    folder.mkdir(parents=True, exist_ok=True)
    stored.graph.initializers.clear()
    try:
        with (folder / DATA_FILE).open("wb") as data:
            for value, tensor in order:
                if progress is not None:
                    progress(done_bytes / total_bytes, name_of(value))
                value.const_value = _store(name_of(value), tensor, data)
                stored.graph.initializers[name_of(value)] = value
                done_bytes += tensor.nbytes
        graph_bytes = ir.to_proto(stored).SerializeToString(deterministic=True)
        (folder / GRAPH_FILE).write_bytes(graph_bytes)
    except OSError as error:
        raise ResourceError(
            str(folder), f"cannot be written: {error.strerror}", "free disk space, then run the same command"
        ) from error
    _check(folder / GRAPH_FILE)


def _by_first_use(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    seen: set[str] = set()
    used = [value for node in graph.all_nodes() for value in node.inputs]
    for value in (*used, *graph.outputs):
        tensor = constant(value)
        if value is not None and tensor is not None and name_of(value) not in seen:
            seen.add(name_of(value))
            yield value, tensor


def _store(name: str, tensor: ir.TensorProtocol, data: BinaryIO) -> ir.TensorProtocol:
    """Append the values of ``tensor`` to ``data``, or keep them when they are few."""
    content = tensor.tobytes()
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
    if len(content) != tensor.nbytes:
        raise InternalError(name, f"its program gave {len(content)} bytes, its type wants {tensor.nbytes}")
    if len(content) < INLINE_BYTES:
        if tensor.dtype.bitwidth < 8:
            return ir.PackedTensor(
                np.frombuffer(content, np.uint8), tensor.dtype, shape=shape_of(tensor), name=name
            )
        values = np.frombuffer(content, tensor.dtype.numpy()).reshape(tensor.shape.numpy())
        return ir.Tensor(values, dtype=tensor.dtype, name=name)
    padding_bytes = -data.tell() % _ALIGNMENT_BYTES
    data.write(bytes(padding_bytes))
    offset = data.tell()
    data.write(content)
    return ir.ExternalTensor(
        DATA_FILE, offset, len(content), tensor.dtype, shape=ir.Shape(shape_of(tensor)), name=name
    )


def _check(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(str(path), f"the ONNX checker refuses what was written: {error}") from error
