"""A random model is read back like a published one, in shards, and its holes are zeros."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.bench.scale.random_model import RandomModel

from latentc.compiler.safetensors_file import read_safetensors
from latentc.runtime.manifest import Json

VAE: dict[str, Json] = {"block_out_channels": [32], "norm_num_groups": 8, "latent_channels": 4}


def test_shards_hold_every_weight_once(tmp_path: Path) -> None:
    model = RandomModel("AutoencoderKL", VAE, "BF16", shard_bytes=100_000)
    weights = model.write(tmp_path / "vae")
    index = json.loads((tmp_path / "vae" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    files = {path.name: read_safetensors(path) for path in sorted((tmp_path / "vae").glob("*.safetensors"))}
    assert len(files) > 1
    assert {name: file for file, one in files.items() for name in one.tensors} == index["weight_map"]
    assert sum(tensor.size for file in files.values() for tensor in file.tensors.values()) == weights
    for file in files.values():
        file.sha256_of_finite()
    kernel = files[index["weight_map"]["decoder.conv_in.weight"]].float32("decoder.conv_in.weight")
    assert 0.3 < np.std(kernel) * np.sqrt(kernel[0].size) < 3


def test_beyond_what_the_disk_holds_there_are_zeros(tmp_path: Path) -> None:
    RandomModel("AutoencoderKL", VAE, "F16", written_bytes=50_000).write(tmp_path / "vae")
    file = read_safetensors(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    seen = [bool(file.float32(name).any()) for name in file.tensors]
    assert seen[0]
    assert not seen[-1]
