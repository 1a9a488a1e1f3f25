"""Foretold component: one component of a recipe as it will be, from its config alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentc.compiler.drawn_sizes import drawn_sizes
from latentc.compiler.forecast.trace import TRACE_FILE, Trace, trace_from_json
from latentc.compiler.stage import Step
from latentc.compiler.stages.engine_shapes import AxisSizes
from latentc.compiler.stages.trace import TraceCall
from latentc.compiler.store import Store
from latentc.recipes.family import Component

if TYPE_CHECKING:
    import onnx_ir as ir

    from latentc.compiler.model_folder import ModelFolder
    from latentc.passes.base import Pass
    from latentc.recipes.recipe import Recipe


ENCODERS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2, Component.TEXT_ENCODER_3)
"""Components that read text: once a picture, and large."""


@dataclass(frozen=True)
class ForetoldComponent:
    """One component.

    Args:
        component: which.
        trace: one call of it for one picture.
        passes: of the recipe.
        plain: the graph of the trace.
        built: the graph as the passes would leave it.
        pictures: rows of B in a call, 2 where both halves of guidance go together.
        sizes: of its axes, as engines are made for them.
    """

    component: Component
    trace: Trace
    passes: Sequence[Pass]
    plain: ir.Model
    built: ir.Model
    pictures: int
    sizes: tuple[AxisSizes, ...]


def foretell_components(
    recipe: Recipe, model: ModelFolder, passes: Mapping[Component, Sequence[Pass]], store: Store
) -> tuple[ForetoldComponent, ...]:
    """Every component of ``model`` as ``recipe`` would build it.

    Traces are taken from ``store``, or made and kept there: torch is imported for those alone.

    Raises:
        ModelError: a config is refused by its class.
        PassError: a pass does not fit its component.
    """
    from latentc.compiler.forecast.passes import foretell
    from latentc.compiler.forecast.weightless_graph import weightless_graph

    found = []
    for spec in model.family.components:
        component = spec.component
        sizes = drawn_sizes(recipe, model, component)
        folder = model.folder_of(component)
        single = tuple((axis, 1 if axis == "B" else size) for axis, size in sizes[0])
        trace = _trace(
            TraceCall(model.family.name, str(component), folder.class_name, folder.config_json, single),
            store,
        )
        plain = weightless_graph(trace, str(component))
        built = foretell(plain, passes[component])
        pictures = dict(sizes[0])["B"]
        found.append(ForetoldComponent(component, trace, passes[component], plain, built, pictures, sizes))
    return tuple(found)


def _trace(stage: TraceCall, store: Store) -> Trace:
    """What ``stage`` gives, from the store or made now."""
    step = Step(f"trace/{stage.component}", stage, {})
    artifact = store.find(step.digest)
    if artifact is None:
        with store.workspace() as work:
            content = work / "content"
            content.mkdir()
            stage.run({}, content, lambda fraction, words: None)
            artifact = store.publish(step.digest, step.key, work, 0.0)
    return trace_from_json((artifact.path / TRACE_FILE).read_text(encoding="utf-8"))
