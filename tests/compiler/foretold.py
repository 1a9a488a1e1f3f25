"""Foretold components of a tiny Stable Diffusion, made once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from tests.tiny_models import write_tiny_stable_diffusion

from latentc.compiler.forecast.component import ForetoldComponent, foretell_components
from latentc.compiler.model_folder import ModelFolder, open_model
from latentc.compiler.recipe_passes import passes_of
from latentc.compiler.store import Store
from latentc.recipes.load import load_recipe

if TYPE_CHECKING:
    from latentc.recipes.load import LoadedRecipe

RECIPE = """
name: tiny
model: {path: model}
sampling: {scheduler: ddim, steps: 4, guidance: 3.0, height: 64, width: 64}
targets: [ort-mobile, jetson-orin-nano-8gb]
passes:
  denoiser: [canonicalize, {split-low-rank: {rank: 8, max_ratio: 0.5, calibrated: false}}, quantize-int4]
validation: {count: 3}
"""


@lru_cache
def place() -> Path:
    """A folder with ``tiny.yaml``, its model without weights, and a store that has the traces."""
    root = Path(mkdtemp(prefix="latentc-foretold-"))
    write_tiny_stable_diffusion(root / "model")
    for weights in (root / "model").rglob("*.safetensors"):
        weights.unlink()
    (root / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    return root


def recipe(*changes: str) -> LoadedRecipe:
    """The recipe, with ``KEY=VALUE`` changes."""
    return load_recipe(place() / "tiny.yaml", list(changes))


@lru_cache
def model() -> ModelFolder:
    """Its configs."""
    return open_model(place() / "model", read_weights=False)


@lru_cache
def store() -> Store:
    """Where its traces are kept."""
    return Store(place() / "store")


@lru_cache
def components(*changes: str) -> tuple[ForetoldComponent, ...]:
    """Its components."""
    loaded = recipe(*changes)
    return foretell_components(loaded.recipe, model(), passes_of(loaded, model().family), store())
