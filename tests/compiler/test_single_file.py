"""A checkpoint in its authors' layout gives the very tensors of the folder that it was made from."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.compiler.original_layouts import flux_transformer, stable_diffusion_checkpoint

from latentc.compiler.model_folder import open_model
from latentc.compiler.safetensors_file import read_safetensors
from latentc.compiler.single_file import converted, likeness
from latentc.errors import ModelError


@pytest.fixture(scope="module")
def checkpoint(tiny_stable_diffusion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as one file, named and cut as Stable Diffusion 1's first publication was."""
    path = tmp_path_factory.mktemp("single") / "model.safetensors"
    return stable_diffusion_checkpoint(tiny_stable_diffusion, path)


@pytest.mark.parametrize("folder", ["unet", "vae", "text_encoder"])
def test_every_component_is_found_whole(tiny_stable_diffusion: Path, checkpoint: Path, folder: str) -> None:
    component = open_model(tiny_stable_diffusion).components[folder]
    found = converted(read_safetensors(checkpoint), component.class_name, component.config)
    assert found is not None
    (original,) = component.files
    names = {name.removeprefix("text_model."): name for name in found.tensors}
    assert set(names) == {name.removeprefix("text_model.") for name in original.tensors}
    for name, tensor in original.tensors.items():
        other = names[name.removeprefix("text_model.")]
        assert found.tensors[other].shape == tensor.shape
        np.testing.assert_array_equal(found.float32(other), original.float32(name))


def test_what_a_file_does_not_hold_is_none(tiny_stable_diffusion: Path, checkpoint: Path) -> None:
    file = read_safetensors(checkpoint)
    assert converted(file, "T5EncoderModel", {}) is None
    assert converted(file, "CLIPTextModel", {"hidden_size": 1280}) is None
    unet = read_safetensors(next((tiny_stable_diffusion / "unet").glob("*.safetensors")))
    assert converted(unet, "AutoencoderKL", {}) is None


def test_another_architecture_is_called_by_its_name(checkpoint: Path) -> None:
    file = read_safetensors(checkpoint)
    assert likeness(file) == "no model that diffusers knows"  # the tiny UNet has no output block 11
    with pytest.raises(ModelError, match="are not those of a FluxTransformer2DModel: it looks like no model"):
        converted(file, "FluxTransformer2DModel", {})


def test_flux_is_cut_apart_at_its_true_width(tmp_path: Path, seed: int) -> None:
    """diffusers' converter has FLUX.1's width in it, so the file has that too; holes stand for most of it."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        module = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    wanted = module.state_dict()
    original = flux_transformer(wanted)
    path = tmp_path / "flux.safetensors"
    offsets = _write_holes(path, {name: tuple(value.shape) for name, value in original.items()})
    joined = "single_blocks.0.linear1.weight"
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(original[joined].shape, np.float32).astype(np.float16)
    with path.open("r+b") as stream:
        stream.seek(offsets[joined])
        stream.write(values.tobytes())
    found = converted(read_safetensors(path), "FluxTransformer2DModel", {})
    assert found is not None
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {
        name: tuple(value.shape) for name, value in wanted.items()
    }
    parts = np.split(values, [3072, 2 * 3072, 3 * 3072])
    for name, part in zip(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), parts, strict=True):
        np.testing.assert_array_equal(found.float32(f"single_transformer_blocks.0.{name}.weight"), part)
    assert "FLUX.1-dev" in likeness(read_safetensors(path))


def _write_holes(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """A sparse float16 safetensors file of zeros; where each tensor lies in it."""
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    starts = {name: entry["data_offsets"][0] for name, entry in header.items() if isinstance(entry, dict)}
    return {name: 8 + len(text) + start for name, start in starts.items()}
