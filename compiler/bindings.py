"""Bindings: join an exported graph with the weights of a model folder, without reading them.

``bindings.json`` of an export artifact::

    {"format": 1, "class_name": "UNet2DConditionModel", "component": "unet", "folder": "unet",
     "weights": {"conv_in.weight": {"keys": ["conv_in.weight"], "shape": [64, 4, 3, 3]}, …},
     "unused": ["encoder.conv_in.weight", …]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from latentc.compiler.checkpoint_keys import NEVER_BOUND
from latentc.errors import InternalError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latentc.compiler.model_folder import ComponentFolder, ModelFolder
    from latentc.compiler.safetensors_file import SafetensorsFile
    from latentc.compiler.single_file import ConvertedFile

FORMAT = 1
GRAPH_FILE = "graph.onnx"
BINDINGS_FILE = "bindings.json"


@dataclass(frozen=True)
class Binding:
    """A weight of the graph: the keys it may have in a checkpoint, best first, and its shape."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Bindings:
    """What a graph needs from a model folder.

    Args:
        component: value of a latentc.recipes.family.Component.
        class_name: of the diffusers or transformers module.
        folder: subfolder of the model folder.
        weights: by the name that the graph has for them.
        unused: keys of weights that the module has and this graph does not need, such as those of the
            VAE's encoder in the graph of its decoder.
    """

    component: str
    class_name: str
    folder: str
    weights: Mapping[str, Binding]
    unused: tuple[str, ...]


def bindings_to_json(bindings: Bindings) -> str:
    """Canonical text of ``bindings``."""
    data = {
        "format": FORMAT,
        "component": bindings.component,
        "class_name": bindings.class_name,
        "folder": bindings.folder,
        "weights": {
            name: {"keys": list(binding.keys), "shape": list(binding.shape)}
            for name, binding in bindings.weights.items()
        },
        "unused": sorted(bindings.unused),
    }
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def bindings_from_json(text: str) -> Bindings:
    """Read back what bindings_to_json wrote; raises InternalError on anything else."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise InternalError(BINDINGS_FILE, f"has format {data['format']}, {FORMAT} was expected")
        weights = {
            name: Binding(tuple(entry["keys"]), tuple(entry["shape"]))
            for name, entry in data["weights"].items()
        }
        return Bindings(data["component"], data["class_name"], data["folder"], weights, tuple(data["unused"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(BINDINGS_FILE, f"is malformed: {error}") from error


def bind(export_artifact: Path, model: ModelFolder) -> ir.Model:
    """Give every weight of an exported graph its place in ``model``.

    The weights become initializers that read, and widen to float32, when they are asked for; nothing is kept.

    Raises:
        ModelError: a weight is missing or has another shape, or the checkpoint holds weights that the
            architecture has no place for (a sign of a config that belongs to another checkpoint).
    """
    bindings = bindings_from_json((export_artifact / BINDINGS_FILE).read_text(encoding="utf-8"))
    folder = model.components[bindings.folder]
    graph_model = ir.load(export_artifact / GRAPH_FILE)
    graph = graph_model.graph
    inputs = {value.name: value for value in graph.inputs}
    for name, binding in bindings.weights.items():
        value = inputs.get(name)
        if value is None:
            raise InternalError(str(export_artifact / GRAPH_FILE), f"has no input for the weight '{name}'")
        file, key = _found(folder, name, binding)
        graph.inputs.remove(value)
        value.const_value = ir.LazyTensor(
            _Reader(file, key, name), ir.DataType.FLOAT, ir.Shape(binding.shape), name=name
        )
        graph.register_initializer(value)
    _refuse_strangers(folder, bindings)
    return graph_model


def _refuse_strangers(folder: ComponentFolder, bindings: Bindings) -> None:
    known = {*bindings.unused, *(key for binding in bindings.weights.values() for key in binding.keys)}
    stored = sorted(key for file in folder.files for key in file.tensors)
    left = [key for key in stored if key not in known and not key.endswith(NEVER_BOUND)]
    if left:
        raise ModelError(
            f"{folder.path}: {left[0]}",
            f"the checkpoint holds {len(left)} weights that {folder.class_name} with this config.json "
            "has no place for",
            "use the config.json that belongs to this checkpoint",
        )


@dataclass(frozen=True)
class _Reader:
    """Reads one weight when called."""

    file: SafetensorsFile | ConvertedFile
    key: str
    name: str

    def __call__(self) -> ir.TensorProtocol:
        return ir.Tensor(self.file.float32(self.key), name=self.name)


def _found(
    folder: ComponentFolder, name: str, binding: Binding
) -> tuple[SafetensorsFile | ConvertedFile, str]:
    for key in binding.keys:
        file = folder.file_of(key)
        if file is None:
            continue
        seen = file.tensors[key].shape
        if seen != binding.shape:
            raise ModelError(
                f"{file.path}: {key}",
                f"has shape {list(seen)}, {folder.class_name} with this config.json wants "
                f"{list(binding.shape)}",
                "use the config.json that belongs to this checkpoint",
            )
        return file, key
    raise ModelError(
        f"{folder.path}: {name}",
        f"no safetensors file holds this weight (looked for {', '.join(binding.keys)})",
        "copy or download the component again",
    )
