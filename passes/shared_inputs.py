"""Shared inputs: values that linears multiply, with all the linears that read each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.base import Refusal
from latentc.passes.int4_layers import int4_linears
from latentc.passes.weights import Floats, Linear, constant, finite_floats, lazy, read, replace_initializer


@dataclass(frozen=True)
class SharedInput:
    """A value, and the linears that multiply nothing else."""

    value: ir.Value
    linears: tuple[Linear, ...]

    @property
    def names(self) -> str:
        """The linears' names."""
        return ", ".join(linear.name for linear in self.linears)

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The MatMuls, in graph order within each linear."""
        return tuple(node for linear in self.linears for node in linear.nodes)

    def weight(self, pass_name: str) -> Floats:
        """The linears' weights side by side, [K, N] float32; raises PassError when one is not finite."""
        parts = []
        for linear in self.linears:
            tensor = constant(linear.weight)
            part = read(tensor) if tensor is not None else np.full(linear.shape, np.nan, np.float32)
            parts.append(finite_floats(part, linear.name, pass_name))
        return np.concatenate(parts, axis=1)

    def mark(self, key: str, pass_name: str) -> None:
        """Note on every MatMul that ``pass_name`` has considered it."""
        for node in self.nodes:
            node.metadata_props[key] = pass_name

    def rewrite(
        self,
        graph: ir.Graph,
        nodes: Sequence[ir.Node],
        program: Callable[[Floats], Floats],
        pass_name: str,
    ) -> None:
        """Let the linears read what the last of ``nodes`` gives, and multiply it by other weights.

        Args:
            graph: of the linears.
            nodes: new ones, in order; they are put before the first linear.
            program: makes the new weight [K, N] of the old one, float32; called when weights are written.
            pass_name: for messages.

        Raises:
            PassError: a linear has no value.
        """
        graph.insert_before(self.nodes[0], nodes)
        self.reweigh(graph, program, pass_name)
        for node in self.nodes:
            node.replace_input_with(0, nodes[-1].outputs[0])

    def reweigh(self, graph: ir.Graph, program: Callable[[Floats], Floats], pass_name: str) -> None:
        """Let the linears multiply by other weights, as ``rewrite`` does, and read what they read."""
        for linear in self.linears:
            source = linear.weight.const_value
            if source is None:
                raise PassError(pass_name, f"'{linear.name}' has no value", "report this graph")
            tensor = lazy(
                source, lambda array: program(array.astype(np.float32)), linear.shape, ir.DataType.FLOAT
            )
            replace_initializer(graph, linear.weight, tensor)


def shared_inputs(
    graph: ir.Graph, group: int, skip: tuple[str, ...], considered: str
) -> Iterator[tuple[SharedInput, Refusal | None]]:
    """Values that INT4 linears read; or a single linear with the reason to leave it alone.

    Args:
        graph: with canonical linears.
        group: of the quantization to come.
        skip: glob patterns of weights to leave alone.
        considered: metadata key of linears that the asking pass has already seen.
    """
    by_value: dict[ir.Value, list[Linear]] = {}
    for linear, refusal in int4_linears(graph, group, skip):
        value = linear.nodes[0].inputs[0]
        if value is None:
            continue
        alone = SharedInput(value, (linear,))
        if refusal is not None:
            yield alone, refusal
        elif considered in linear.nodes[0].metadata_props:
            yield alone, Refusal(linear.name, "was considered already")
        elif any(node.inputs[0] is not value for node in linear.nodes):
            yield alone, Refusal(linear.name, "multiplies several values, and each would need its own")
        else:
            by_value.setdefault(value, []).append(linear)
    for value, linears in by_value.items():
        yield SharedInput(value, tuple(linears)), None
