"""Checkpoint modules: components of the original pipeline whose weights come from a single checkpoint.

Only torch code lives here; import this file inside functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latentc.compiler.checkpoint_keys import keys_of
from latentc.compiler.flat import module_on_meta
from latentc.compiler.model_folder import open_model
from latentc.errors import ModelError

if TYPE_CHECKING:
    from latentc.compiler.model_folder import ComponentFolder


def modules_from_checkpoint(root: Path, checkpoint: Path) -> dict[str, torch.nn.Module]:
    """The components that ``checkpoint`` holds, float16, by the name that diffusers' pipeline has for them.

    Args:
        root: the folder with their configs.
        checkpoint: as latentc.compiler.model_folder.open_model takes it.

    Raises:
        ModelError: the checkpoint lacks a weight of a component that it holds.
    """
    model = open_model(root, checkpoint, read_values=False)
    return {name: _module(model.components[name]) for name in model.from_checkpoint}


def _module(folder: ComponentFolder) -> torch.nn.Module:
    module = module_on_meta(folder.class_name, folder.config)
    (file,) = folder.files
    state: dict[str, torch.Tensor] = {}
    for name, _ in module.named_parameters(remove_duplicate=False):
        key = next((key for key in keys_of(folder.class_name, name) if key in file.tensors), None)
        if key is None:
            raise ModelError(
                f"{file.path}: {name}",
                f"the checkpoint lacks this weight of its {folder.class_name}",
                "copy or download the checkpoint again, or name the base that belongs to it",
            )
        state[name] = torch.from_numpy(file.float32(key)).to(torch.float16)
    module.load_state_dict(state, assign=True, strict=False)  # buffers have their values already
    return module
