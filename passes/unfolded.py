"""Unfolded: the windows of a picture side by side as rows, so that a convolution is one matrix product.

rows = Concat(Slice(Pad(Transpose(x)), i, j) for every place i, j of the kernel)     [B, h, w, kh · kw · C]
kernel as matrix: w[N, C, kh, kw] → [kh · kw · C, N]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from latentc.passes.weights import Array, initializer

TO_ROWS, TO_PICTURE = (0, 2, 3, 1), (0, 3, 1, 2)
"""How axes of a picture [B, C, h, w] and of its rows [B, h, w, C] are exchanged."""
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Window:
    """What of a picture an output of a convolution looks at.

    Args:
        kernel: height and width.
        strides: down and to the right.
        pads: at the top, left, bottom and right.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def is_point(self) -> bool:
        """Whether rows are the picture's own pixels."""
        return self == Window((1, 1), (1, 1), (0, 0, 0, 0))


def window_of(convolution: ir.Node, shape: Sequence[int]) -> Window | str:
    """The window of a Conv with a kernel of ``shape``, or why its windows are no rows of one matrix."""
    attributes = convolution.attributes
    if len(shape) != 4:
        return "is no convolution of pictures"
    if attributes.get_int("group", 1) != 1:
        return "convolves groups of channels"
    if any(step != 1 for step in attributes.get_ints("dilations", (1, 1))):
        return "has a dilated kernel"
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "leaves its padding to the runtime"
    down, right = attributes.get_ints("strides", (1, 1))
    top, left, bottom, right_side = attributes.get_ints("pads", (0, 0, 0, 0))
    return Window((shape[2], shape[3]), (down, right), (top, left, bottom, right_side))


def matrix_of(kernel: Array) -> Array:
    """[N, C, kh, kw] as [kh · kw · C, N], in the order of the rows."""
    return np.transpose(kernel, (2, 3, 1, 0)).reshape(-1, kernel.shape[0])


def rows_of(
    graph: ir.Graph, picture: ir.Value, filling: ir.Value, window: Window, name: str
) -> tuple[list[ir.Node], ir.Value]:
    """The nodes, in order, that make rows of ``picture`` [B, C, H, W], and what they make, [B, h, w, K].

    Args:
        graph: gets the constants that say where to cut.
        picture: of any type.
        filling: a scalar of that type, for what lies outside.
        window: of the convolution.
        name: the nodes' names begin with it.
    """
    transposed = ir.node("Transpose", [picture], attributes={"perm": TO_ROWS})
    nodes = [_named(transposed, f"{name}.pixels", picture)]
    if window.is_point:
        return nodes, transposed.outputs[0]
    top, left, bottom, right = window.pads
    padded = nodes[-1].outputs[0]
    if any(window.pads):
        pads = _numbers(graph, (0, top, left, 0, 0, bottom, right, 0))
        nodes.append(_named(ir.node("Pad", [padded, pads, filling]), f"{name}.padded", picture))
        padded = nodes[-1].outputs[0]
    height, width = window.kernel
    cuts: list[ir.Value] = []
    for i in range(height):
        for j in range(width):
            # counted from the end: what no window reaches from here, whatever the picture's size
            ends = (i - height + 1 or _LAST, j - width + 1 or _LAST)
            where = [_numbers(graph, numbers) for numbers in ((i, j), ends, (1, 2), window.strides)]
            nodes.append(_named(ir.node("Slice", [padded, *where]), f"{name}.{i}.{j}", picture))
            cuts.append(nodes[-1].outputs[0])
    joined = ir.node("Concat", cuts, attributes={"axis": 3})
    nodes.append(_named(joined, f"{name}.rows", picture))
    return nodes, joined.outputs[0]


def _named(node: ir.Node, name: str, like: ir.Value) -> ir.Node:
    node.name = node.outputs[0].name = name
    node.outputs[0].type = like.type
    return node


def _numbers(graph: ir.Graph, numbers: tuple[int, ...]) -> ir.Value:
    """A constant vector of ``numbers``, shared by all that want the same."""
    name = "numbers." + ".".join("end" if number == _LAST else str(number) for number in numbers)
    known = graph.initializers.get(name)
    return known if known is not None else initializer(graph, name, ir.tensor(np.array(numbers, np.int64)))
