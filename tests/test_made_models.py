"""Made models are real checkpoints: the same bytes for a seed, loadable, sharded with an index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tests.made_models import values_of, write_made_component, write_made_model
from tests.small_configs import small_config

from latentc.compiler.flat import module_on_meta
from latentc.compiler.safetensors_file import read_safetensors
from latentc.recipes.families.flux import FLUX
from latentc.recipes.family import Component
from latentc.recipes.published.catalogue import published_model
from latentc.runtime.manifest import Json

SPEC = FLUX.spec(Component.TRANSFORMER)
CONFIG = small_config("transformer-flux-dev")
VAE = FLUX.spec(Component.VAE_DECODER)
VAE_CONFIG: dict[str, Json] = {"block_out_channels": [32], "norm_num_groups": 8, "latent_channels": 4}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_component_loads_with_the_dtype_it_was_made_in(tmp_path: Path, dtype: str) -> None:
    from diffusers import FluxTransformer2DModel

    folder = write_made_component(tmp_path / "transformer", SPEC, CONFIG, dtype=dtype)
    module = FluxTransformer2DModel.from_pretrained(folder, dtype=getattr(torch, dtype))
    weight = module.state_dict()["transformer_blocks.0.ff.net.2.weight"]
    assert weight.dtype is getattr(torch, dtype)
    K = weight.shape[1]
    # of 16 384 values: a hundredth of the deviation is within two of its own
    assert abs(float(weight.float().std()) * K**0.5 - 1) < 0.02


def test_the_same_seed_gives_the_same_bytes_and_shards_hold_what_one_file_does(tmp_path: Path) -> None:
    one, again = (write_made_component(tmp_path / name, SPEC, CONFIG) for name in ("one", "again"))
    name = "diffusion_pytorch_model.safetensors"
    assert (one / name).read_bytes() == (again / name).read_bytes()
    cut = write_made_component(tmp_path / "cut", SPEC, CONFIG, shard_bytes=2**18)
    index = json.loads((cut / f"{name}.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2
    with safe_open(one / name, "pt") as whole:
        for file in files:
            with safe_open(cut / file, "pt") as part:
                names = list(part.keys())
                assert all(torch.equal(part.get_tensor(key), whole.get_tensor(key)) for key in names)
        assert sorted(index["weight_map"]) == sorted(whole.keys())


def test_norms_are_near_one_and_biases_near_zero() -> None:
    (weight,), (bias,) = (list(values_of(name, (4096,), 0)) for name in ("norm.weight", "norm.bias"))
    assert abs(float(weight.mean()) - 1) < 0.01
    assert abs(float(bias.mean())) < 0.01


def test_a_model_is_a_folder_for_each_component(tmp_path: Path) -> None:
    changes = {folder: small_config(part) for folder, part in published_model("flux.1-schnell").parts}
    write_made_model(tmp_path, published_model("flux.1-schnell"), changes=changes)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "FluxPipeline"
    assert index["text_encoder_2"] == ["transformers", "T5EncoderModel"]
    assert sorted(path.parent.name for path in tmp_path.glob("*/config.json")) == [
        "text_encoder",
        "text_encoder_2",
        "transformer",
        "vae",
    ]


def test_every_weight_is_in_one_shard_finite_and_of_an_initialisation(tmp_path: Path) -> None:
    folder = write_made_component(tmp_path / "vae", VAE, VAE_CONFIG, shard_bytes=100_000)
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    files = {path.name: read_safetensors(path) for path in sorted(folder.glob("*.safetensors"))}
    assert len(files) > 1
    assert {name: file for file, one in files.items() for name in one.tensors} == index["weight_map"]
    module = module_on_meta(VAE.class_name, VAE_CONFIG)
    weights = sum(parameter.numel() for parameter in module.parameters())
    assert sum(tensor.size for file in files.values() for tensor in file.tensors.values()) == weights
    for file in files.values():
        file.sha256_of_finite()
    kernel = files[index["weight_map"]["decoder.conv_in.weight"]].float32("decoder.conv_in.weight")
    assert 0.3 < np.std(kernel) * np.sqrt(kernel[0].size) < 3


@pytest.mark.parametrize("shard_bytes", [10**9, 100_000])
def test_beyond_what_the_disk_holds_there_are_zeros(tmp_path: Path, shard_bytes: int) -> None:
    folder = write_made_component(
        tmp_path / "vae", VAE, VAE_CONFIG, dtype="float16", shard_bytes=shard_bytes, written_bytes=50_000
    )
    files = [read_safetensors(path) for path in sorted(folder.glob("*.safetensors"))]
    seen = [bool(file.float32(name).any()) for file in files for name in file.tensors]
    assert seen[0]
    assert not seen[-1]
