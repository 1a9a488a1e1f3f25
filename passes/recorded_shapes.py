"""Recorded shapes: how large the values of a graph are when it runs on a recorded input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from latentc.passes.calibration import inner_values
from latentc.passes.weights import Array


def recorded_shapes(
    model: ir.Model, names: Sequence[str], sample: Mapping[str, Array]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the values called ``names`` when ``model`` runs on ``sample``.

    The graph itself is asked for shapes, so that no more than one large value has to be kept at a time.
    """
    asking = model.clone()
    values = {value.name: value for value in (*asking.graph.inputs, *_made(asking.graph))}
    places = {}
    for name in dict.fromkeys(names):
        shape = ir.node("Shape", [values[name]])
        # inner_values gives floats, which are exact for sizes below 2²⁴
        floats = ir.node("Cast", [shape.outputs[0]], attributes={"to": ir.DataType.FLOAT.value})
        for node, ending in ((shape, "asked"), (floats, "asked.float32")):
            node.name = node.outputs[0].name = f"{name}.{ending}"
        asking.graph.extend([shape, floats])
        places[name] = floats.name or ""
    (found,) = inner_values(asking, list(places.values()), [sample])
    return {name: tuple(int(side) for side in found[place]) for name, place in places.items()}


def _made(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs]
