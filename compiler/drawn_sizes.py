"""Drawn sizes: the sizes of a component's dynamic axes when a recipe's pictures are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentc.compiler.stages.engine_shapes import AxisSizes, engine_sizes
from latentc.compiler.stages.pack import latent_entry
from latentc.compiler.tokenizer_entry import tokenizer_entries

if TYPE_CHECKING:
    from latentc.compiler.model_folder import ModelFolder
    from latentc.recipes.family import Component
    from latentc.recipes.recipe import Recipe


def drawn_sizes(recipe: Recipe, model: ModelFolder, component: Component) -> tuple[AxisSizes, ...]:
    """As engine_sizes gives them for the picture, the guidance and the texts of ``recipe``, usual ones first.

    Raises:
        ModelError: a tokenizer has no length.
    """
    return engine_sizes(
        model.family,
        component,
        recipe.sampling.height,
        recipe.sampling.width,
        latent_entry(model).downscale,
        {name: entry.max_length for name, entry in tokenizer_entries(model).items()},
        guided=recipe.sampling.guidance > 1,
    )
