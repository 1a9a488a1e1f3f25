"""What a graph only simulates: told where that is allowed, refused where it would have to be executed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from latentc.errors import TargetError
from latentc.passes.quantize_activations import SIMULATED

if TYPE_CHECKING:
    import onnx_ir as ir

    from latentc.recipes.target import Target


def simulated_in(model: ir.Model, component: str) -> tuple[str, ...]:
    """What ``model`` simulates, in the report's words, one line a kind."""
    counts = Counter(
        node.metadata_props[SIMULATED] for node in model.graph if SIMULATED in node.metadata_props
    )
    return tuple(
        f"{component}: {kind}, rounded in float32 in {count} {'place' if count == 1 else 'places'}"
        for kind, count in sorted(counts.items())
    )


def refuse_simulated(model: ir.Model, target: Target, component: str) -> None:
    """Raise TargetError, naming the first node, when ``model`` simulates what ``target`` does not execute."""
    for node in model.graph:
        kind = node.metadata_props.get(SIMULATED)
        if kind is not None:
            raise TargetError(
                f"{target.name}: {component}: {node.name}",
                f"asks for {kind}, and this target executes {'; '.join(target.executes)}",
                "take quantize-activations out of the recipe, or build for target onnx, which simulates it",
            )
