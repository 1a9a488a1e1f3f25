"""Makers: the constants that make the channels of a value, where a change of them costs nothing.

    y = MatMul(x, w) + b                y · T: w · T and b · T
    y = LayerNormalization(x, γ, β)     y · T: γ · T and β · T, for a scale
    y = u · f(g), u = MatMul(x, w)      y · T: w · T, for a scale
    y = softmax · v, by heads           y · T: what makes v, for T within a head

Split, Reshape, Transpose, Unsqueeze and sums that keep the channels may lie between. A scalar, or a vector
that others read as well, becomes a vector of its own. adaLN, norm(x) · (1 + scale) + shift, costs that: K
numbers, as many as a Mul before the linears, but no node. To put 1 / s - 1 into the bias behind ``scale``
would cost none, but for s of 50 float16 would keep the sum of 1 and that to 1 % only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from latentc.passes.attention import Values
from latentc.passes.weights import REWRITES_INPUT, constant, matches, name_of, read, shape_of

_NORMS = ("LayerNormalization", "RMSNormalization")


@dataclass(frozen=True)
class Place:
    """A constant whose last axis makes channels.

    Args:
        node: what reads it.
        index: which input of ``node`` it is.
        first: where the channels begin on its last axis.
        width: how long that axis is; a scalar counts for all of it.
    """

    node: ir.Node
    index: int
    first: int
    width: int

    @property
    def name(self) -> str:
        """The constant's name."""
        value = self.node.inputs[self.index]
        return "nothing" if value is None else name_of(value)

    @property
    def is_own(self) -> bool:
        """Whether it can be changed where it is: a vector or matrix that nothing else reads."""
        value = self.node.inputs[self.index]
        tensor = constant(value)
        return value is not None and tensor is not None and tensor.size > 1 and len(list(value.uses())) == 1


@dataclass(frozen=True)
class Makers:
    """What makes the channels of an input.

    Args:
        places: the constants to change.
        mixes: blocks of neighbouring channels may be mixed whose size divides it; 1 allows only a scale.
    """

    places: tuple[Place, ...]
    mixes: int

    def __str__(self) -> str:
        return ", ".join(place.name if place.is_own else f"{place.name} (a copy)" for place in self.places)


class Blocked(Exception):
    """A transform does not get past a value; the text says why."""


def makers_of(value: ir.Value, readers: Sequence[ir.Node], K: int, skip: tuple[str, ...]) -> Makers:
    """What makes ``value`` [..., K], which only ``readers`` multiply.

    Args:
        value: of a graph of canonical linears.
        readers: the MatMuls that will undo what is done to the channels.
        K: its channels.
        skip: glob patterns of weights that may not change.

    Raises:
        Blocked: something else reads it on the way, or computes with its channels.
    """
    if value.producer() is None:
        raise Blocked(f"'{name_of(value)}' is an input")
    others = [use for use in value.uses() if use.node not in readers or use.idx != 0]
    if others or value.is_graph_output():
        reader = f"a {others[0].node.op_type}" if others else "the caller"
        raise Blocked(f"{reader} reads '{name_of(value)}' as well")
    return _allowed(_behind(value, 0, K, K), skip)


def makers_of_values(values: Values, skip: tuple[str, ...]) -> Makers:
    """What makes the values of one attention; raises Blocked when ``skip`` names such a weight."""
    places: list[Place] = []
    for source in values.sources:
        N = source.shape[2] * source.shape[3]
        places.append(Place(source.product, 1, 0, N))
        if source.bias is not None:
            add = source.bias.add
            places.append(Place(add, 1 if add.inputs[1] is source.bias.value else 0, 0, N))
    return _allowed(Makers(tuple(places), values.heads[1]), skip)


def _allowed(makers: Makers, skip: tuple[str, ...]) -> Makers:
    for place in makers.places:
        if matches(place.name, skip):
            raise Blocked(f"'{place.name}' matches skip")
    return makers


def _behind(value: ir.Value, first: int, K: int, width: int) -> Makers:
    """The makers of channels ``first`` to ``first + K`` of ``value``, whose last axis has ``width``.

    That it has is known at the makers, whose constants are as wide; what lies between changes no channel.
    """
    node = value.producer()
    if node is None:
        raise Blocked(f"'{name_of(value)}' is an input")
    if REWRITES_INPUT in node.metadata_props or node.domain:
        raise Blocked(f"'{name_of(value)}' was put there by a pass")
    if node.op_type == "MatMul":
        return _of_linear(node, first, K, width)
    if node.op_type in _NORMS:
        return _of_norm(node, first, width)
    if node.op_type == "Add":
        return _of_sum(node, first, K, width)
    if node.op_type == "Mul":
        return _of_product(node, first, K, width)
    if node.op_type == "Split":
        return _of_split(node, value, K, width)
    if not _keeps_channels(node, width):
        raise Blocked(f"'{name_of(value)}' is a {node.op_type}")
    return _behind(_alone(node.inputs[0]), first, K, width)


def _of_linear(node: ir.Node, first: int, K: int, width: int) -> Makers:
    weight, given = node.inputs[1], node.inputs[0]
    tensor = constant(weight)
    if weight is None or tensor is None:
        raise Blocked(f"'{name_of(node.outputs[0])}' multiplies two computed values")
    is_vector = given is not None and given.shape is not None and len(given.shape) < 2
    if tensor.dtype is not ir.DataType.FLOAT or len(shape_of(tensor)) != 2 or is_vector:
        raise Blocked(f"'{name_of(weight)}' is no float32 matrix that multiplies tokens")
    if shape_of(tensor)[1] != width:
        raise Blocked(f"'{name_of(weight)}' gives {shape_of(tensor)[1]} channels, not {width}")
    if len(list(weight.uses())) != 1:
        raise Blocked(f"'{name_of(weight)}' is read by others as well")
    return Makers((Place(node, 1, first, width),), K)


def _of_norm(node: ir.Node, first: int, width: int) -> Makers:
    if node.attributes.get_int("axis", -1) != -1:
        raise Blocked(f"'{name_of(node.outputs[0])}' normalizes another axis than the last")
    places = [
        _vector(node, index, first, width) for index in range(1, len(node.inputs)) if node.inputs[index]
    ]
    return Makers(tuple(places), 1)


def _of_sum(node: ir.Node, first: int, K: int, width: int) -> Makers:
    found: list[Makers] = []
    for index, value in enumerate(node.inputs):
        if constant(value) is not None:
            found.append(Makers((_vector(node, index, first, width, may_be_number=True),), K))
        else:
            found.append(_behind(_alone(value), first, K, width))
    found.sort(key=lambda makers: makers.places[0].node is node)  # a bias comes after its weight
    return Makers(
        tuple(place for makers in found for place in makers.places), min(makers.mixes for makers in found)
    )


def _of_product(node: ir.Node, first: int, K: int, width: int) -> Makers:
    """A scale of one side is one of the product; the side with fewer copies is taken, or the first."""
    found: list[Makers] = []
    reasons: list[str] = []
    for index, value in enumerate(node.inputs):
        try:
            if constant(value) is None:
                makers = _behind(_alone(value), first, K, width)
                by_number = _is_number(node.inputs[1 - index])
                found.append(makers if by_number else Makers(makers.places, 1))
            elif not _is_number(value):
                found.append(Makers((_vector(node, index, first, width),), 1))
        except Blocked as blocked:
            reasons.append(str(blocked))
    if not found:
        raise Blocked("; ".join(dict.fromkeys(reasons)))
    return min(found, key=lambda makers: sum(not place.is_own for place in makers.places))


def _of_split(node: ir.Node, value: ir.Value, K: int, width: int) -> Makers:
    """Channels of one part of a Split along the last axis; that it is the last the makers' width proves."""
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    sizes = [width] * len(node.outputs) if given is None else [int(size) for size in read(given).tolist()]
    number = list(node.outputs).index(value)
    if width != K or sizes[number] != K:
        raise Blocked(f"'{name_of(value)}' is cut twice")
    return _behind(_alone(node.inputs[0]), sum(sizes[:number]), K, sum(sizes))


def _keeps_channels(node: ir.Node, width: int) -> bool:
    """Whether ``node`` moves whole rows of ``width`` channels and does nothing else."""
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else [1, 0]
        return order[-1] == len(order) - 1
    stored = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if stored is None:
        return False
    numbers = np.atleast_1d(read(stored)).tolist()
    if node.op_type == "Reshape":
        return int(numbers[-1]) == width  # and so has what it reshapes, by its own maker or Reshape
    if node.op_type == "Unsqueeze":  # of two axes at least: a new one is not behind the last
        return all(-axis > 1 if axis < 0 else axis <= len(numbers) for axis in numbers)
    return False


def _is_number(value: ir.Value | None) -> bool:
    tensor = constant(value)
    return tensor is not None and tensor.size == 1


def _vector(node: ir.Node, index: int, first: int, width: int, *, may_be_number: bool = False) -> Place:
    value = node.inputs[index]
    tensor = constant(value)
    if value is None or tensor is None:
        raise Blocked(f"'{name_of(node.outputs[0])}' reads a computed vector")
    if tensor.dtype is not ir.DataType.FLOAT:
        raise Blocked(f"'{name_of(value)}' is no float32")
    is_vector = tensor.size == width and shape_of(tensor)[-1:] == (width,)
    if not is_vector and not (may_be_number and tensor.size == 1):
        raise Blocked(f"'{name_of(value)}' has {tensor.size} numbers, not {width}")
    return Place(node, index, first, width)


def _alone(value: ir.Value | None) -> ir.Value:
    """``value``, which one node reads."""
    if value is None:
        raise Blocked("an input is missing")
    if len(list(value.uses())) != 1 or value.is_graph_output():
        raise Blocked(f"'{name_of(value)}' is read by others as well")
    return value
