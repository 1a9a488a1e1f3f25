"""Model writer: a model's weights into its data file, unit by unit in any order, then its graph.

Where a weight lies in the file is settled before the first is computed. So the bytes are the same whichever
unit comes first, and threads may write at the same time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from latentc.errors import InternalError
from latentc.passes.layer_units import LayerUnit, layer_units
from latentc.passes.weights import constant, name_of, shape_of

GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
OPSET = 21
IR_VERSION = 10
INLINE_BYTES = 1024
"""Tensors smaller than this stay in the graph file, where shape inference can read them."""
_ALIGNMENT_BYTES = 64
Content: TypeAlias = "bytes | memoryview"
_PART_BYTES = 4 << 20


@dataclass(frozen=True)
class Written:
    """What is known of a unit that was written.

    Args:
        digest: SHA-256 of its tensors' names and bytes, one after another.
        inline: the bytes of those that stay in the graph file, by name.
    """

    digest: bytes
    inline: Mapping[str, bytes]


class ModelWriter:
    """One model on its way into a folder; the model itself stays as it is.

    Initializers lie in the order in which the nodes use them; those that no node uses and no output names
    are left out. The types and shapes of inner values are left out unless ``keep_types``: what is not there
    cannot be stale.
    """

    def __init__(self, model: ir.Model, folder: Path, *, keep_types: bool = False) -> None:
        self._model = _prepared(model, keep_types=keep_types)
        self._folder = folder
        self._order = list(_by_first_use(self._model.graph))
        self._offsets: dict[str, int] = {}
        end_bytes = 0
        for value, tensor in self._order:
            if tensor.nbytes >= INLINE_BYTES:
                start_bytes = end_bytes + -end_bytes % _ALIGNMENT_BYTES
                self._offsets[name_of(value)] = start_bytes
                end_bytes = start_bytes + tensor.nbytes
        self.data_bytes = end_bytes
        self.size_bytes = max(1, sum(tensor.nbytes for _, tensor in self._order))
        self.units = layer_units([(name_of(value), tensor) for value, tensor in self._order])

    def open(self) -> None:
        """Make the data file at its full size, without taking the room; what is in it stays."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / DATA_FILE).open("ab") as data:
            data.truncate(self.data_bytes)

    def write(self, unit: LayerUnit) -> Written:
        """Compute the tensors of ``unit`` and put them where they belong.

        Raises:
            InternalError: a program gave another number of bytes than it promised.
            OSError: the disk does not take them.
        """
        digest = hashlib.sha256()
        inline: dict[str, bytes] = {}
        with (self._folder / DATA_FILE).open("r+b", buffering=0) as data:
            for name, tensor in unit.tensors:
                digest.update(name.encode())
                offset, written = self._offsets.get(name), 0
                small = bytearray()
                for part in _parts(tensor):
                    digest.update(part)
                    if offset is None:
                        small += bytes(part)
                    else:
                        _write_all(data.fileno(), part, offset + written)
                    written += memoryview(part).nbytes
                if written != tensor.nbytes:
                    raise InternalError(
                        name, f"its program gave {written} bytes, its type wants {tensor.nbytes}"
                    )
                if offset is None:
                    inline[name] = bytes(small)
        return Written(digest.digest(), inline)

    def holds(self, unit: LayerUnit, written: Written) -> bool:
        """Whether the data file has what ``write`` said of ``unit``, in an earlier run."""
        digest = hashlib.sha256()
        with (self._folder / DATA_FILE).open("rb", buffering=0) as data:
            for name, tensor in unit.tensors:
                digest.update(name.encode())
                if name in written.inline:
                    digest.update(written.inline[name])
                elif name in self._offsets:
                    for part in _read_parts(data.fileno(), self._offsets[name], tensor.nbytes):
                        digest.update(part)
        return digest.digest() == written.digest

    def finish(self, units: Iterable[Written]) -> None:
        """Write the graph, when all units are written.

        Raises:
            InternalError: the ONNX checker refuses the result; that is a defect of a pass.
        """
        inline = {name: content for unit in units for name, content in unit.inline.items()}
        graph = self._model.graph
        graph.initializers.clear()
        for value, tensor in self._order:
            name = name_of(value)
            offset = self._offsets.get(name)
            value.const_value = (
                _inline(name, tensor, inline[name])
                if offset is None
                else ir.ExternalTensor(
                    DATA_FILE,
                    offset,
                    tensor.nbytes,
                    tensor.dtype,
                    shape=ir.Shape(shape_of(tensor)),
                    name=name,
                )
            )
            graph.initializers[name] = value
        graph_bytes = ir.to_proto(self._model).SerializeToString(deterministic=True)
        (self._folder / GRAPH_FILE).write_bytes(graph_bytes)
        _check(self._folder / GRAPH_FILE)


def _prepared(model: ir.Model, *, keep_types: bool) -> ir.Model:
    stored = model.clone()
    for owner in stored.graph.initializers.values():
        if owner.const_value is None:
            raise InternalError(name_of(owner), "is an initializer without a value")
    stored.ir_version = IR_VERSION
    stored.producer_name, stored.producer_version = "latentc", ""
    stored.graph.opset_imports[""] = OPSET
    for node in stored.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output() and not keep_types:
                value.shape = value.type = None
    return stored


def _by_first_use(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    seen: set[str] = set()
    used = [value for node in graph.all_nodes() for value in node.inputs]
    for value in (*used, *graph.outputs):
        tensor = constant(value)
        if value is not None and tensor is not None and name_of(value) not in seen:
            seen.add(name_of(value))
            yield value, tensor


def _parts(tensor: ir.TensorProtocol) -> Iterator[Content]:
    """The bytes of ``tensor`` as they are stored, a few MiB at a time where that saves a copy."""
    while isinstance(tensor, ir.LazyTensor):
        tensor = tensor.raw()
    if isinstance(tensor, ir.ExternalTensor):
        with Path(tensor.path).open("rb", buffering=0) as file:
            yield from _read_parts(file.fileno(), tensor.offset or 0, tensor.nbytes)
    elif isinstance(tensor, ir.PackedTensor):
        yield np.ascontiguousarray(tensor.numpy_packed()).reshape(-1).data
    elif tensor.dtype.bitwidth < 8 or not tensor.shape.numpy():
        yield tensor.tobytes()
    else:
        array = tensor.numpy()
        rows = max(1, _PART_BYTES * len(array) // max(1, array.nbytes))
        for start in range(0, len(array), rows):
            # one that lies by columns is turned here
            yield np.ascontiguousarray(array[start : start + rows]).reshape(-1).view(np.uint8).data


def _read_parts(descriptor: int, offset: int, size_bytes: int) -> Iterator[bytes]:
    end = offset + size_bytes
    while offset < end:
        part = os.pread(descriptor, min(_PART_BYTES, end - offset), offset)
        if not part:
            return  # shorter than it was; whoever asked counts
        offset += len(part)
        yield part


def _write_all(descriptor: int, content: Content, offset: int) -> None:
    waiting = memoryview(content).cast("B")
    while waiting:
        count = os.pwrite(descriptor, waiting, offset)
        waiting, offset = waiting[count:], offset + count


def _inline(name: str, tensor: ir.TensorProtocol, content: bytes) -> ir.TensorProtocol:
    if tensor.dtype.bitwidth < 8:
        return ir.PackedTensor(
            np.frombuffer(content, np.uint8), tensor.dtype, shape=shape_of(tensor), name=name
        )
    values = np.frombuffer(content, tensor.dtype.numpy()).reshape(tensor.shape.numpy())
    return ir.Tensor(values, dtype=tensor.dtype, name=name)


def _check(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(str(path), f"the ONNX checker refuses what was written: {error}") from error
