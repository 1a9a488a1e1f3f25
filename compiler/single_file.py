"""Single file: a checkpoint in its authors' own layout, seen as components in diffusers' layout.

diffusers' converters rename, cut and join the tensors; here they do it to recorded tensors, so no weight is
read before it is asked for, and then only what it is made of. Only this file knows those converters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.loaders import single_file_utils
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors import safe_open

from latentc.compiler.recorded_tensor import RecordedTensor, recorded
from latentc.compiler.safetensors_file import SafetensorsFile, StoredTensor
from latentc.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

    from latentc.runtime.manifest import Json

_TORCH_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_NAMES = {dtype: name for name, dtype in _TORCH_DTYPES.items()}
_CLIP_LAYOUTS = (
    ("clip", ""),
    ("clip_sdxl", ""),
    ("clip_sd3", "text_encoders.clip_l.transformer."),
    ("open_clip_sd3", "text_encoders.clip_g.transformer."),
)
"""By diffusers' key name: what stands before a transformers CLIP's tensors, besides diffusers' own list."""
_OPEN_CLIP_LAYOUTS = (
    ("open_clip", "cond_stage_model.model."),
    ("open_clip_sdxl", "conditioner.embedders.1.model."),
)
"""The same of OpenCLIP's tensors, which have other names and q, k and v in one."""


@dataclass(frozen=True)
class ConvertedFile:
    """One component of a checkpoint, under diffusers' names; see latentc.compiler.safetensors_file.

    Args:
        path: of the checkpoint.
        tensors: by diffusers' name. Offsets have no meaning.
    """

    path: Path
    tensors: Mapping[str, StoredTensor]
    _recorded: Mapping[str, RecordedTensor]

    def float32(self, name: str) -> npt.NDArray[np.float32]:
        """The values of ``name`` in its shape, made of what the checkpoint stores."""
        values: npt.NDArray[np.float32] = self._recorded[name].values().to(torch.float32).numpy()
        return values


def converted(file: SafetensorsFile, class_name: str, config: Mapping[str, Json]) -> ConvertedFile | None:
    """The component of ``class_name`` in ``file``; None when the file holds none.

    Args:
        file: a checkpoint in the layout that its authors published, or in diffusers' own.
        class_name: of the diffusers or transformers module.
        config: of that module: the converters ask it for depths and widths.

    Raises:
        ModelError: there is such a component, and its tensors are not those of the class and config.
    """
    checkpoint = {
        name: recorded(tensor.shape, _TORCH_DTYPES[tensor.dtype], _reader(file.path, name))
        for name, tensor in file.tensors.items()
    }
    convert = _converter(class_name, checkpoint, config)
    if convert is None:
        return None
    try:
        found = convert(checkpoint)
    except (KeyError, IndexError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            str(file.path),
            f"its tensors are not those of a {class_name}: it looks like {likeness(file)} ({error!r})",
            "name the base that belongs to this checkpoint: model.base in the recipe",
        ) from error
    if not found:
        return None
    made = {name: tensor for name, tensor in found.items() if isinstance(tensor, RecordedTensor)}
    tensors = {
        name: StoredTensor(_NAMES[tensor.dtype], tuple(tensor.shape), 0) for name, tensor in made.items()
    }
    return ConvertedFile(file.path, tensors, made)


def likeness(file: SafetensorsFile) -> str:
    """The published model whose checkpoint has the same tell-tale tensors, as diffusers knows them."""
    checkpoint = {
        name: torch.empty(tensor.shape, dtype=_TORCH_DTYPES[tensor.dtype], device="meta")
        for name, tensor in file.tensors.items()
    }
    kind = single_file_utils.infer_diffusers_model_type(checkpoint)
    if kind == "v1" and single_file_utils.CHECKPOINT_KEY_NAMES["v1"] not in checkpoint:
        return "no model that diffusers knows"  # which it calls "v1" too
    paths = single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS
    return str(paths[kind]["pretrained_model_name_or_path"])


_Checkpoint = Mapping[str, torch.Tensor]
_Convert = Callable[[dict[str, Any]], Mapping[str, Any]]


def _reader(path: Path, name: str) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        with safe_open(path, framework="pt") as file:
            values: torch.Tensor = file.get_tensor(name)
        return values

    return read


def _converter(class_name: str, checkpoint: _Checkpoint, config: Mapping[str, Json]) -> _Convert | None:
    """What turns ``checkpoint`` into the tensors of ``class_name``; None when it has none of them."""
    if class_name in ("CLIPTextModel", "CLIPTextModelWithProjection"):
        return _clip_converter(checkpoint, config.get("hidden_size"))
    if class_name == "T5EncoderModel":
        convert: _Convert = single_file_utils.convert_sd3_t5_checkpoint_to_diffusers
        return convert if single_file_utils.is_t5_in_single_file(checkpoint) else None
    prefixes = tuple(single_file_utils.LDM_VAE_KEYS)
    if class_name.startswith("Autoencoder") and not any(name.startswith(prefixes) for name in checkpoint):
        return None
    entry = SINGLE_FILE_LOADABLE_CLASSES.get(class_name)
    return None if entry is None else partial(entry["checkpoint_mapping_fn"], config=dict(config))


def _clip_converter(checkpoint: _Checkpoint, width: Json) -> _Convert | None:
    """A checkpoint may hold two CLIPs; the one that is meant is ``width`` channels wide."""

    def is_here(layout: str) -> bool:
        place = single_file_utils.CHECKPOINT_KEY_NAMES[layout]
        return place in checkpoint and checkpoint[place].shape[-1] == width

    for layout, prefix in _CLIP_LAYOUTS:
        if is_here(layout):
            return partial(single_file_utils.convert_ldm_clip_checkpoint, remove_prefix=prefix or None)
    for layout, prefix in _OPEN_CLIP_LAYOUTS:
        if is_here(layout):
            shell = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
            return lambda all_: single_file_utils.convert_open_clip_checkpoint(shell, all_, prefix)
    return None
