"""Segments: a graph cut at its linears, so that what one of them multiplies is known when it is quantized.

    segment 0    from the graph's inputs to what the first linears multiply
    segment 1    those linears, and on to what the next ones multiply
    …

Linears that stand beside one another (queries, keys and values; those that read the noise level) share a
segment as long as none of them depends on another. Segments follow the graph's order, not its depth: linears
of one depth may stand in all blocks of a model, and their weights would be in memory at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from latentc.passes.weights import Linear, name_of


@dataclass(frozen=True)
class Segment:
    """A part of a graph that can run at once.

    Args:
        outputs: of its nodes, which are named by their first output.
        weights: that it multiplies by and that were quantized before it runs.
        takes: values that it reads and does not make; some are inputs of the graph.
        gives: values that it makes and that later segments or ``linears`` read.
        dropped: values of this and earlier segments that nothing after it and none of ``linears`` reads.
        linears: that multiply what is known when it has run; none depends on another. The first of its nodes
            is the first in the graph.
    """

    outputs: frozenset[str]
    weights: tuple[str, ...]
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    dropped: tuple[str, ...]
    linears: tuple[Linear, ...]


def segments_of(graph: ir.Graph, linears: Sequence[Linear]) -> list[Segment]:
    """The parts of ``graph`` in order, up to what the last of ``linears`` multiplies.

    A weight that several MatMuls multiply by belongs where the first of them stands.
    """
    if not linears:
        return []
    place = _Places(graph, linears)
    return [place.segment(number) for number in range(len(place.linears))]


class _Places:
    """In which segment each node runs; constants, and what is made of them alone, run where they are read."""

    def __init__(self, graph: ir.Graph, linears: Sequence[Linear]) -> None:
        waiting = {linear.weight: linear for linear in linears}
        self._weights = frozenset(waiting)
        self._graph = graph
        self._of_value = dict.fromkeys(graph.inputs, 0)
        self._of_node: dict[ir.Node, int] = {}
        self._first: set[ir.Node] = set()
        self.linears: list[list[Linear]] = [[]]
        for node in graph:
            known = [self._of_value[value] for value in node.inputs if value in self._of_value]
            if not known:
                continue
            now = len(self.linears) - 1
            weight = node.inputs[1] if node.op_type == "MatMul" else None
            linear = waiting.pop(weight, None) if weight is not None else None
            if linear is None:
                number = max(now, *known)
            else:
                if max(known) > now:  # it depends on a linear of the segment at hand
                    self.linears.append([])
                others = (other for other in linear.nodes if other is not node)
                self.linears[-1].append(replace(linear, nodes=(node, *others)))
                self._first.add(node)
                number = len(self.linears)
            self._of_node[node] = number
            self._of_value.update(dict.fromkeys(node.outputs, number))

    def segment(self, number: int) -> Segment:
        """The segment ``number``, from 0."""
        nodes = [node for node, place in self._of_node.items() if place == number]
        own = {value for node in nodes for value in node.outputs}
        read = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
        made = [value for node in nodes for value in node.outputs]
        constants = _made_of_constants(read, self._of_value)
        takes = [value for value in read if value in self._of_value and value not in own]
        return Segment(
            outputs=frozenset(name_of(node.outputs[0]) for node in (*nodes, *constants)),
            weights=tuple(name_of(value) for value in read if value in self._weights),
            takes=tuple(map(name_of, takes)),
            gives=tuple(name_of(value) for value in made if self._last_read(value) > number),
            dropped=tuple(name_of(value) for value in takes if self._last_read(value) <= number),
            linears=tuple(self.linears[number]),
        )

    def _last_read(self, value: ir.Value) -> int:
        """The last segment that reads ``value``; nothing runs after the last linear's input is known."""
        readers = {use.node for use in value.uses()}
        return max(
            (
                self._of_node[node]
                for node in readers
                if node in self._first or self._of_node[node] < len(self.linears)
            ),
            default=-1,
        )


def _made_of_constants(read: Iterable[ir.Value], known: Container[ir.Value]) -> Iterator[ir.Node]:
    """The nodes behind those of ``read`` that depend on no input of the graph."""
    for value in read:
        node = value.producer()
        if node is not None and value not in known:
            yield node
            yield from _made_of_constants([one for one in node.inputs if one is not None], known)
