"""component.json: a lowered component's line in the manifest, with the sizes of what is delivered."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.errors import InternalError
from latentc.runtime.manifest import ComponentEntry, Json, TensorEntry

if TYPE_CHECKING:
    import onnx_ir as ir

COMPONENT_FILE = "component.json"


@dataclass(frozen=True)
class Lowered:
    """What lowering says about one component besides its files.

    Args:
        entry: its line in the manifest.
        simulated: what the target only simulates of it, in words; empty when all is executed as stated.
        proof: what was proven here for a target that runs elsewhere, in words; empty when nothing was.
    """

    entry: ComponentEntry
    simulated: tuple[str, ...] = ()
    proof: str = ""


def entry_of_model(model: ir.Model, file: str, onnx: str) -> ComponentEntry:
    """The manifest's line for ``model``, with sizes as in this ONNX form.

    Args:
        model: read from the files that are delivered; no weight is read.
        file: what the session opens, relative to the bundle.
        onnx: as in ComponentEntry.
    """
    from latentc.passes.weight_bytes import weigh

    weights = weigh(model)
    initializers = model.graph.initializers
    return ComponentEntry(
        file=file,
        onnx=onnx,
        inputs=tuple(_tensor(value) for value in model.graph.inputs if value.name not in initializers),
        outputs=tuple(_tensor(value) for value in model.graph.outputs),
        weight_bytes=weights.weight_bytes,
        quantized_bytes=weights.quantized_bytes,
        quantized_fp16_bytes=weights.quantized_fp16_bytes,
        fp16_bytes=weights.fp16_bytes,
    )


def write_lowered(lowered: Lowered, folder: Path) -> None:
    """Write ``folder``/component.json."""
    text = json.dumps(asdict(lowered), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / COMPONENT_FILE).write_text(text, encoding="utf-8")


def read_lowered(folder: Path) -> Lowered:
    """Read back what write_lowered wrote; raises InternalError on anything else."""
    path = folder / COMPONENT_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        entry: dict[str, Json] = data["entry"]
        tensors = {name: tuple(_tensor_entry(item) for item in data["entry"][name]) for name in _TENSORS}
        return Lowered(
            ComponentEntry(**{**entry, **tensors}),  # type: ignore[arg-type] # as written above
            tuple(data["simulated"]),
            data["proof"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InternalError(str(path), f"is no lowered component: {error}") from error


_TENSORS = ("inputs", "outputs")


def _tensor_entry(data: dict[str, Json]) -> TensorEntry:
    shape = data["shape"]
    if not isinstance(shape, list):
        raise TypeError(f"shape is {shape!r}")
    sizes = tuple(size if isinstance(size, int) else str(size) for size in shape)
    return TensorEntry(str(data["name"]), str(data["dtype"]), sizes)


def _tensor(value: ir.Value) -> TensorEntry:
    if value.dtype is None or value.shape is None or value.name is None:
        raise InternalError(str(value.name), "is an input or output without a type or shape")
    sizes = tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
    return TensorEntry(value.name, str(value.dtype.numpy()), sizes)
