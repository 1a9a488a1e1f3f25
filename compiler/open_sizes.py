"""Open sizes: a graph that was traced at fixed sizes is given its axes back.

before:  Reshape(x: [103, 2021, 320], [103, 43, 47, 320])
after:   Reshape(x: ["B", "h*w", 320], Concat(Shape(latent)[0:1], Shape(latent)[2:3], …, [320]))

torch computes with symbols at every operator, several times over: three quarters of the time of an export.
So a component is traced at sizes that are each a prime times the axis's step, with primes that divide no size
of any weight. What such a prime divides is a product of axes, what is the sum of two such sizes is two axes
side by side, and what is one more than a product was padded; every other number has to be known from the
weights or the config. Where one is not, the graph cannot be opened, and has to be traced with symbols.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx_ir as ir

from latentc.passes.weights import initializer

if TYPE_CHECKING:
    from latentc.recipes.family import TensorSpec

_PRIMES: Mapping[str, tuple[int, ...]] = {
    "T": (67, 61, 71, 73),  # CLIP has 77 positions
    "h": (43, 47, 53, 59),
    "w": (47, 53, 59, 43),
    "H": (43, 47, 53, 59),
    "W": (47, 53, 59, 43),
}
_OTHER_PRIMES = (103, 131, 137, 149, 163, 167)
_SMALL = 16
"""Ranks, channels of a picture, heads: known without being asked for."""
_LONGEST_SHAPE = 64
"""Numbers of a tensor that may be sizes; longer ones are indices and tables."""
_LARGEST_SHARE = 1e6
"""Above it float32 has too few digits to tell a size."""

Extent: TypeAlias = "Mapping[tuple[str, ...], Fraction]"
"""A size as a sum of products of axes: ``{("h", "w"): 1/4}`` is h·w/4, ``{(): 320}`` a fixed 320."""


class NotOpen(Exception):
    """A number of the graph is neither a product of axes nor known from the architecture."""


@dataclass
class OpenSizes:
    """Sizes to trace at, and what they mean in a graph that was traced at them.

    Args:
        sizes: by axis, its step times its prime.
        primes: by axis, each its own.
        known: numbers of the architecture, from 1; none is divided by any of the primes. What divides one
            and what is the product of two is known as well.
    """

    sizes: Mapping[str, int]
    primes: Mapping[str, int]
    known: frozenset[int]
    _met: dict[int, Extent] = field(default_factory=dict, init=False)
    """Sizes that the graph has, in its order: operands before results."""

    @classmethod
    def of(cls, steps: Mapping[str, int], known: Collection[int]) -> OpenSizes | None:
        """Sizes for axes that are multiples of ``steps``; None when all primes divide something known."""
        primes: dict[str, int] = {}
        for axis in steps:
            for prime in _PRIMES.get(axis, _OTHER_PRIMES):
                if prime not in primes.values() and not any(
                    number % prime == 0 for number in known if number
                ):
                    primes[axis] = prime
                    break
            else:
                return None
        sizes = {axis: step * primes[axis] for axis, step in steps.items()}
        return cls(sizes, primes, frozenset(number for number in known if number > 0))

    def extent(self, size: int) -> Extent:
        """What ``size`` (from 0) is made of; raises NotOpen."""
        if size not in self._met:
            self._met[size] = self._taken_apart(size)
        return self._met[size]

    def is_open(self, size: int) -> bool:
        """Whether ``size`` (from 0) depends on an axis; raises NotOpen."""
        return any(self.extent(size))

    def may_be_open(self, number: int) -> bool:
        """Whether ``number``, which may be an index as well as a size, has to do with an axis."""
        return any(number != 0 and number % prime == 0 for prime in self.primes.values()) or any(
            self._met.get(number, ())
        )

    def _taken_apart(self, size: int) -> Extent:
        axes: list[str] = []
        rest = Fraction(size)
        for axis, prime in self.primes.items():
            while size and rest.numerator % prime == 0:
                rest /= self.sizes[axis]
                axes.append(axis)
        if self._is_known(rest.numerator):
            return {tuple(axes): rest}
        if axes and rest.denominator == 1:
            inner = self.extent(rest.numerator)
            return {self._in_order(*axes, *more): share for more, share in inner.items()}
        for one, extent in self._met.items():
            other = self._met.get(size - one, {})
            if any(extent) and any(other) and extent != other:  # two axes side by side
                return _sum(extent, other)
            if any(extent) and size - one == 1:  # padded
                return _sum(extent, {(): Fraction(1)})
        raise NotOpen(f"{size} is no product of {dict(self.sizes)} and known numbers")

    def _in_order(self, *axes: str) -> tuple[str, ...]:
        return tuple(sorted(axes, key=list(self.sizes).index))

    def _is_known(self, number: int) -> bool:
        return number <= _SMALL or any(
            one % number == 0 or (number % one == 0 and number // one in self.known) for one in self.known
        )


def _sum(left: Extent, right: Extent) -> Extent:
    return {axes: left.get(axes, Fraction(0)) + right.get(axes, Fraction(0)) for axes in {**left, **right}}


def text_of(extent: Extent) -> str:
    """``extent`` as graphs show it: ``h*w/4``, ``S + T``."""
    return " + ".join(_text_of(axes, share) for axes, share in extent.items())


def _text_of(axes: tuple[str, ...], share: Fraction) -> str:
    factors = [*([str(share.numerator)] if share.numerator != 1 or not axes else []), *axes]
    return "*".join(factors) + (f"/{share.denominator}" if share.denominator != 1 else "")


def open_graph(graph: ir.Graph, inputs: Sequence[TensorSpec], sizes: OpenSizes) -> None:
    """Put axes in the place of ``sizes`` in all shapes and constants of ``graph``.

    Args:
        graph: its constants are initializers; its first inputs are ``inputs``, the others weights.
        inputs: of the component.
        sizes: what it was traced at.

    Raises:
        NotOpen: the graph has a number that means something else; it is half rewritten then.
    """
    places: dict[str, tuple[ir.Value, int]] = {}
    for spec, value in zip(inputs, graph.inputs, strict=False):
        for place, axis in enumerate(spec.axes):
            if axis in sizes.sizes:
                places.setdefault(axis, (value, place))
    values = [*graph.inputs[: len(inputs)], *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([_axis_of(size, sizes) for size in value.shape])
    for node in graph:
        for attribute in node.attributes.values():
            _refuse_open(attribute, sizes)
    for constant in list(graph.initializers.values()):
        _open_constant(graph, constant, sizes, places)


def _axis_of(size: object, sizes: OpenSizes) -> int | str:
    if not isinstance(size, int):
        raise NotOpen(f"a size is {size}")
    return text_of(sizes.extent(size)) if sizes.is_open(size) else size


def _refuse_open(attribute: ir.Attr, sizes: OpenSizes) -> None:
    numbers: Sequence[int] = ()
    if attribute.type == ir.AttributeType.INT:
        numbers = [attribute.as_int()]
    elif attribute.type == ir.AttributeType.INTS:
        numbers = attribute.as_ints()
    if any(sizes.may_be_open(number) for number in numbers):
        raise NotOpen(f"attribute {attribute.name} is {list(numbers)}")


def _open_constant(
    graph: ir.Graph, constant: ir.Value, sizes: OpenSizes, places: Mapping[str, tuple[ir.Value, int]]
) -> None:
    """Compute ``constant`` from the shapes of the inputs when it depends on them."""
    tensor = constant.const_value
    if tensor is None:
        return
    shape = [int(size) for size in tensor.shape if isinstance(size, int)]
    if any(sizes.is_open(size) for size in shape):
        raise NotOpen(f"{constant.name} is a constant of shape {shape}")
    if tensor.size > _LONGEST_SHAPE:
        return
    if tensor.dtype.is_floating_point():
        _refuse_shares(constant, tensor, sizes)
    if tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return
    numbers = [int(number) for number in np.ravel(tensor.numpy())]
    if not any(sizes.may_be_open(number) for number in numbers):
        return
    is_negative = any(number < 0 and sizes.may_be_open(number) for number in numbers)
    if tensor.dtype != ir.DataType.INT64 or len(shape) > 1 or is_negative:
        raise NotOpen(f"{constant.name} is {numbers}")
    nodes: list[ir.Node] = []
    parts = [_number(graph, nodes, number, sizes, places) for number in numbers]
    nodes.append(ir.node("Concat", parts, {"axis": 0}) if shape else ir.node("Squeeze", parts))
    result = nodes[-1].outputs[0]
    for number, node in enumerate(nodes):
        node.name = f"{constant.name}.{number}"
        node.outputs[0].name = f"{constant.name}.{number}"
        node.outputs[0].dtype = ir.DataType.INT64
        node.outputs[0].shape = ir.Shape([1])
    result.shape = ir.Shape(shape)
    ir.convenience.replace_all_uses_with(constant, result)
    first = next(iter(graph))
    graph.insert_before(first, nodes)


def _refuse_shares(constant: ir.Value, tensor: ir.TensorProtocol, sizes: OpenSizes) -> None:
    """Raise NotOpen where a float is a size, or what an average or a scale takes of one."""
    for value in np.ravel(tensor.numpy()).astype(np.float64):
        for number in (value, value * value, *((1 / value, 1 / value**2) if value else ())):
            nearest = round(number) if abs(number) <= _LARGEST_SHARE else 0
            if nearest > _SMALL and abs(number - nearest) <= 1e-6 * nearest and sizes.may_be_open(nearest):
                raise NotOpen(f"{constant.name} has {value:g}")


def _number(
    graph: ir.Graph,
    nodes: list[ir.Node],
    number: int,
    sizes: OpenSizes,
    places: Mapping[str, tuple[ir.Value, int]],
) -> ir.Value:
    """``number`` as a tensor of one element."""
    if number <= 0 or not sizes.is_open(number):
        return _constant(graph, number)
    terms = []
    for axes, share in sizes.extent(number).items():
        product: ir.Value | None = None
        for axis in axes:
            if axis not in places:
                raise NotOpen(f"no input has the axis {axis} alone")
            value, place = places[axis]
            size = ir.node("Shape", [value], {"start": place, "end": place + 1})
            nodes.append(size)
            product = size.outputs[0] if product is None else _node(nodes, "Mul", product, size.outputs[0])
        if product is None:
            terms.append(_constant(graph, share.numerator))
            continue
        if share.numerator != 1:
            product = _node(nodes, "Mul", product, _constant(graph, share.numerator))
        if share.denominator != 1:
            product = _node(nodes, "Div", product, _constant(graph, share.denominator))
        terms.append(product)
    result = terms[0]
    for term in terms[1:]:
        result = _node(nodes, "Add", result, term)
    return result


def _node(nodes: list[ir.Node], op_type: str, left: ir.Value, right: ir.Value) -> ir.Value:
    nodes.append(ir.node(op_type, [left, right]))
    return nodes[-1].outputs[0]


def _constant(graph: ir.Graph, number: int) -> ir.Value:
    name = f"size.{number}"
    known = graph.initializers.get(name)
    return known if known is not None else initializer(graph, name, ir.tensor(np.array([number], np.int64)))
