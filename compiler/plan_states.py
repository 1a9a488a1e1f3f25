"""Plan states: what of a recipe's plan is in the store, as far as that can be said at once.

A step's identity holds its weights' hashes. To plan a model before it is downloaded, or without reading the
gigabytes that it has, its configs do: then the steps are known, and not whether the store has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentc.compiler.model_folder import ModelFolder, open_model
from latentc.compiler.model_place import model_place
from latentc.compiler.plan import plan_recipe
from latentc.compiler.run import StepState, states_of
from latentc.compiler.store import Store
from latentc.recipes.load import LoadedRecipe

READ_AT_MOST_BYTES = 2**30
"""Weights up to this size are hashed to look steps up: a second's work."""


@dataclass(frozen=True)
class PlanStates:
    """A plan as far as it is known.

    Args:
        model: opened; without files where its weights were not read.
        targets: that it is for.
        states: of its steps, in order.
        unread: why the store was not asked, in words; empty when it was.
    """

    model: ModelFolder
    targets: tuple[str, ...]
    states: tuple[StepState, ...]
    unread: str = ""


def plan_states(loaded: LoadedRecipe, targets: tuple[str, ...], store: Store) -> PlanStates:
    """The steps of ``loaded``, and whether ``store`` has them.

    Args:
        loaded: the recipe.
        targets: instead of the recipe's own; empty for those.
        store: where finished work is kept.

    Raises:
        LatentcError: the recipe or the model cannot be built.
    """
    names = targets or loaded.recipe.targets
    place = model_place(loaded)
    model = open_model(place.folder, read_weights=False)
    paths = [path for one in model.components.values() for path in one.path.glob("*.safetensors")]
    if place.checkpoint is not None:
        paths = [place.checkpoint]
    unread = _why_unread(paths)
    if unread:
        plan = plan_recipe(loaded, model, names)
        states = tuple(StepState(step, False, "not looked up", None) for step in plan.steps)
        return PlanStates(model, names, states, unread)
    model = open_model(place.folder, place.checkpoint, read_values=False)
    return PlanStates(model, names, states_of(plan_recipe(loaded, model, names), store))


def _why_unread(paths: list[Path]) -> str:
    if not paths:
        return "the model's weights are not there"
    size_bytes = sum(path.stat().st_size for path in paths)
    if size_bytes > READ_AT_MOST_BYTES:
        return f"the model's weights, {size_bytes / 2**30:.1f} GiB, were not read"
    return ""
