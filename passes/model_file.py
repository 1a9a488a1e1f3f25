"""Model file: a component model folder, ``model.onnx`` with ``model.onnx.data``, to onnx-ir and back.

Reading maps the data and touches no weight. Writing pulls one weight after another through whatever
program the passes composed on it; the same model gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from latentc.errors import ModelError, ResourceError
from latentc.passes.model_writer import DATA_FILE, GRAPH_FILE, ModelWriter
from latentc.passes.one_thread import one_thread

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

    One layer is in memory at a time; what is left out is said in latentc.passes.model_writer.

    Raises:
        InternalError: the ONNX checker refuses the result; that is a defect of a pass.
        ResourceError: the disk is full.
    """
    writer = ModelWriter(model, folder, keep_types=keep_types)
    done_bytes = 0
    written = []
    try:
        (folder / DATA_FILE).unlink(missing_ok=True)
        writer.open()
        with one_thread():
            for unit in writer.units:
                if progress is not None:
                    progress(done_bytes / writer.size_bytes, unit.name)
                written.append(writer.write(unit))
                done_bytes += unit.size_bytes
        writer.finish(written)
    except OSError as error:
        raise ResourceError(
            str(folder), f"cannot be written: {error.strerror}", "free disk space, then run the same command"
        ) from error
