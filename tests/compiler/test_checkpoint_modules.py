"""A pipeline whose weights lie in one checkpoint draws what the folder that it was made from draws."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.compiler.original_layouts import stable_diffusion_checkpoint

from latentc.compiler.checkpoint_modules import modules_from_checkpoint
from latentc.compiler.model_folder import open_model
from latentc.compiler.original import Original
from latentc.compiler.sampling_options import SamplingOptions
from latentc.errors import ModelError


@pytest.fixture(scope="module")
def base(tiny_stable_diffusion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configs, tokenizer and scheduler, without any weight."""
    folder = tmp_path_factory.mktemp("base") / "base"
    shutil.copytree(tiny_stable_diffusion, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def test_the_same_picture_to_the_bit(tiny_stable_diffusion: Path, base: Path, tmp_path: Path) -> None:
    checkpoint = stable_diffusion_checkpoint(tiny_stable_diffusion, tmp_path / "model.safetensors")
    from_folder = SamplingOptions(
        tiny_stable_diffusion, open_model(tiny_stable_diffusion).digest, (), "ddim", 2, 3.0, 64, 64
    )
    single = open_model(base, checkpoint)
    from_file = replace(from_folder, model_root=base, checkpoint=checkpoint, model_digest=single.digest)
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 4, 16, 16), np.float32))
    pictures = []
    for options in (from_folder, from_file):
        original = Original(single.family, options)
        embeddings = original.embed(original.token_ids(["a red circle"]))
        negative = original.embed(original.token_ids([""]))
        latents = original.denoise(noise, embeddings, negative, lambda _: noise, lambda _: None)
        pictures.append(original.pictures(latents))
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_a_weight_that_is_missing_is_named(tiny_stable_diffusion: Path, base: Path, tmp_path: Path) -> None:
    checkpoint = stable_diffusion_checkpoint(tiny_stable_diffusion, tmp_path / "model.safetensors")
    tensors = load_file(checkpoint)
    del tensors["model.diffusion_model.out.2.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(
        ModelError, match=r"less.safetensors: conv_out.bias: the checkpoint lacks this weight"
    ):
        modules_from_checkpoint(base, tmp_path / "less.safetensors")
