"""Axis letters become sizes, for both families."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.runtime.small_bundle import write_small_bundle

from latentc.errors import BundleError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.family import Component
from latentc.runtime.axes import input_shapes
from latentc.runtime.manifest import Manifest, TensorEntry, TokenizerEntry


def _manifest(folder: Path, component: Component, *inputs: TensorEntry) -> Manifest:
    manifest = write_small_bundle(folder)
    if component is Component.TRANSFORMER:
        manifest = replace(manifest, family=FLUX.name)
    entry = replace(manifest.components["unet"], inputs=inputs)
    tokenizers = {**manifest.tokenizers, "tokenizer_2": TokenizerEntry("t.json", 24, 0)}
    return replace(manifest, components={str(component): entry}, tokenizers=tokenizers)


def test_flux_counts_tokens(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path / "bundle",
        Component.TRANSFORMER,
        TensorEntry("latent", "float32", ("B", "S", 16)),
        TensorEntry("text_states", "float32", ("B", "T", 64)),
        TensorEntry("image_ids", "float32", ("S", 3)),
        TensorEntry("timestep", "float32", ("B",)),
    )
    shapes = input_shapes(manifest, Component.TRANSFORMER, batch=1, height=64, width=32)
    assert shapes == {
        "latent": (1, 8 * 4, 16),
        "text_states": (1, 24, 64),  # T5's length, not CLIP's
        "image_ids": (8 * 4, 3),
        "timestep": (1,),
    }


def test_pictures_and_latents(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path / "bundle", Component.VAE_ENCODER, TensorEntry("image", "float32", ("B", 3, "H", "W"))
    )
    shapes = input_shapes(manifest, Component.VAE_ENCODER, batch=2, height=64, width=32)
    assert shapes == {"image": (2, 3, 64, 32)}


def test_an_axis_without_a_meaning(tmp_path: Path) -> None:
    manifest = _manifest(
        tmp_path / "bundle", Component.VAE_ENCODER, TensorEntry("image", "float32", ("batch", 3))
    )
    with pytest.raises(BundleError, match=r"vae_encoder\.inputs\.image: has an axis 'batch', wanted a num"):
        input_shapes(manifest, Component.VAE_ENCODER, batch=2, height=64, width=32)
