"""CLIP reference: what a CLIPModel reads in prompts, and its picture encoder as ONNX.

out/clip.npz                  text_features [P, F] of the prompts, rows of length 1
out/clip/vision/model.onnx    pixels [B, 3, side, side] → features [B, F]
out/clip/preprocess.json      side_pixels, mean, std
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from latentc.compiler.export_graph import graph_of
from latentc.compiler.flat import FlatComponent
from latentc.compiler.quiet import quiet_loading
from latentc.errors import ModelError
from latentc.recipes.family import TensorSpec

if TYPE_CHECKING:
    from latentc.compiler.clip_folder import ClipFolder

BATCH = 16
"""Prompts read together."""


class FlatClipVision(nn.Module):
    """``pixels`` → ``features``, projected, of any length."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original: Any = original

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Look at pictures."""
        (pixels,) = tensors
        seen = self.original.vision_model(pixels).pooler_output
        features: torch.Tensor = self.original.visual_projection(seen)
        return features


def write_clip(folder: ClipFolder, prompts: Sequence[str], out: Path) -> None:
    """Read ``prompts`` and write what the module docstring lists.

    Raises:
        ModelError: transformers cannot load the model.
    """
    from transformers import CLIPModel, CLIPTokenizer

    with quiet_loading():
        try:
            model: Any = CLIPModel.from_pretrained(
                folder.root, dtype=torch.float32, attn_implementation="eager", local_files_only=True
            ).eval()
            tokenizer = CLIPTokenizer.from_pretrained(folder.root, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelError(
                str(folder.root), f"transformers cannot load it: {error}", "check that CLIPModel loads it"
            ) from error
    vision_model = out / "clip" / "vision" / "model.onnx"
    vision_model.parent.mkdir(parents=True)
    ids = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=model.config.text_config.max_position_embeddings,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    with torch.no_grad():
        features = torch.cat(
            [
                model.text_projection(model.text_model(ids[start : start + BATCH]).pooler_output)
                for start in range(0, len(prompts), BATCH)
            ]
        )
    np.savez(
        out / "clip.npz", allow_pickle=False, text_features=nn.functional.normalize(features, dim=-1).numpy()
    )
    settings = {"side_pixels": folder.side_pixels, "mean": list(folder.mean), "std": list(folder.std)}
    (out / "clip" / "preprocess.json").write_text(
        json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    _export_vision(model, folder.side_pixels, vision_model)


def _export_vision(clip: nn.Module, side_pixels: int, path: Path) -> None:
    """Export the picture encoder; ``clip`` loses its weights by this."""
    weights = {name: tensor.numpy() for name, tensor in clip.state_dict().items()}
    model = graph_of(
        FlatComponent(
            FlatClipVision(clip).eval().requires_grad_(False),
            (TensorSpec("pixels", "float32", ("B", "3*", "side*", "side*"), "pixels"),),
            (TensorSpec("features", "float32", ("B", "F*"), ""),),
            (torch.zeros(2, 3, side_pixels, side_pixels),),
        ),
        "clip_vision",
    )
    for value in list(model.graph.inputs[1:]):
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(weights[str(value.name)], name=value.name)
        model.graph.register_initializer(value)
    ir.save(model, path, external_data=f"{path.name}.data")
