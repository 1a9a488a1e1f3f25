"""A small LoRA in diffusers' format: one linear, one convolution, and one linear of a text encoder."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import save_file
from tests.passes.graphs import values

from latentc.passes.weights import Array


def lora_tensors() -> dict[str, Array]:
    return {
        "unet.block.to_q.lora_A.weight": values("down", (4, 64)),
        "unet.block.to_q.lora_B.weight": values("up", (32, 4)),
        "unet.block.to_q.alpha": values("alpha", ()),
        "unet.block.conv.lora_A.weight": values("down", (2, 4, 3, 3)),
        "unet.block.conv.lora_B.weight": values("up", (8, 2, 1, 1)),
        "text_encoder.layers.0.fc.lora_A.weight": values("down", (2, 16)),
        "text_encoder.layers.0.fc.lora_B.weight": values("up", (16, 2)),
    }


def write_lora(path: Path, tensors: Mapping[str, Array] | None = None) -> Path:
    save_file(lora_tensors() if tensors is None else dict(tensors), path)
    return path
