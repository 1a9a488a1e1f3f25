"""Trace: what one call of a component computes, with the sizes of all that it computes with; as data.

It is recorded from the architecture alone, at one size of picture (latentc.compiler.forecast.trace_module),
and kept: what takes seconds is done once. Operators have torch's own names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from latentc.errors import InternalError

FORMAT = 1
TRACE_FILE = "trace.json"


@dataclass(frozen=True)
class TracedValue:
    """A tensor that an operator gave or that the component took.

    Args:
        shape: at the size that was traced.
        itemsize: bytes of one of its numbers.
    """

    shape: tuple[int, ...]
    itemsize: int

    @property
    def numbers(self) -> int:
        """How many there are in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TracedNode:
    """An operator.

    Args:
        op: torch's name for it: ``linear``, ``conv2d``, ``scaled_dot_product_attention``, ``add`` …
        inputs: tensors in order: a number for a value, a name for a weight.
        outputs: values that it gave. One that shows an input's numbers in another shape gives that input.
    """

    op: str
    inputs: tuple[int | str, ...]
    outputs: tuple[int, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """Those of the inputs that are no weights."""
        return tuple(one for one in self.inputs if isinstance(one, int))

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of those that are."""
        return tuple(one for one in self.inputs if isinstance(one, str))


@dataclass(frozen=True)
class Trace:
    """One call of a component.

    Args:
        weights: shape by name, of those that the call reads, as the checkpoint has them.
        values: by number.
        inputs: values that the component takes.
        outputs: values that it gives.
        nodes: in the order of the call.
        live_bytes: the most that was alive at a moment in torch, weights left out.
        batch: the B of it.
    """

    weights: Mapping[str, tuple[int, ...]]
    values: tuple[TracedValue, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: tuple[TracedNode, ...]
    live_bytes: int
    batch: int

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        return sum(math.prod(shape) for shape in self.weights.values())

    def operations(self, node: TracedNode) -> int:
        """Multiplications and additions of ``node``; 0 for what multiplies no matrices."""
        if not node.outputs:
            return 0
        given = self.values[node.outputs[0]]
        if node.op in ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d") and node.weights:
            return 2 * given.numbers * math.prod(self.weights[node.weights[0]][1:])
        if node.op == "scaled_dot_product_attention":
            query, key = (self.values[one] for one in node.values[:2])
            return 4 * query.numbers * key.shape[-2]
        if node.op in ("matmul", "bmm", "__matmul__") and node.values:
            return 2 * given.numbers * self.values[node.values[0]].shape[-1]
        return 0


def trace_to_json(trace: Trace) -> str:
    """``trace`` as canonical text."""
    data = {
        "format": FORMAT,
        "weights": {name: list(shape) for name, shape in trace.weights.items()},
        "values": [[one.itemsize, *one.shape] for one in trace.values],
        "inputs": list(trace.inputs),
        "outputs": list(trace.outputs),
        "nodes": [[one.op, list(one.inputs), list(one.outputs)] for one in trace.nodes],
        "live_bytes": trace.live_bytes,
        "batch": trace.batch,
    }
    return json.dumps(data, separators=(",", ":")) + "\n"


def trace_from_json(text: str) -> Trace:
    """Read back what trace_to_json wrote; raises InternalError on anything else."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise InternalError(TRACE_FILE, f"has format {data['format']}, {FORMAT} was expected")
        return Trace(
            {name: tuple(shape) for name, shape in data["weights"].items()},
            tuple(TracedValue(tuple(shape), itemsize) for itemsize, *shape in data["values"]),
            tuple(data["inputs"]),
            tuple(data["outputs"]),
            tuple(TracedNode(op, tuple(takes), tuple(gives)) for op, takes, gives in data["nodes"]),
            data["live_bytes"],
            data["batch"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(TRACE_FILE, f"is malformed: {error}") from error
