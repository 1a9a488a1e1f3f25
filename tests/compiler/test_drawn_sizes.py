"""Sizes follow the recipe's picture, guidance and texts."""

from __future__ import annotations

from pathlib import Path

from tests.tiny_models import TOKENS

from latentc.compiler.drawn_sizes import drawn_sizes
from latentc.compiler.model_folder import open_model
from latentc.recipes.family import Component
from latentc.recipes.recipe import Model, Recipe, Sampling


def test_of_the_denoiser(tiny_stable_diffusion: Path) -> None:
    model = open_model(tiny_stable_diffusion, read_values=False)
    recipe = Recipe(
        name="any",
        model=Model(path="any"),
        sampling=Sampling(scheduler="ddim", guidance=3.0, height=64, width=96),
        targets=("onnx",),
    )
    usual, single = drawn_sizes(recipe, model, Component.UNET)
    assert dict(usual) == {"B": 2, "T": TOKENS, "h": 16, "w": 24}
    assert dict(single) == {"B": 1, "T": TOKENS, "h": 16, "w": 24}
