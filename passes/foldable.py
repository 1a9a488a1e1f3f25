"""Foldable: inputs of linears with what makes them, and a transform folded into both.

    before   x = MatMul(a, v)        y = MatMul(x, w)
    after    x = MatMul(a, v · T)    y = MatMul(x, T⁻¹ · w)        no node more

All readers of one attention are taken together, since what makes its values makes the inputs of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from latentc.passes.attention import Values, find_attentions
from latentc.passes.channel_transform import ChannelTransform, note_folded
from latentc.passes.makers import Blocked, Makers, Place, makers_of, makers_of_values
from latentc.passes.shared_inputs import SharedInput
from latentc.passes.weights import OWN_CONSTANTS, Array, constant, initializer, lazy, name_of, shape_of


@dataclass(frozen=True)
class Foldable:
    """Inputs that the same makers make, and those makers; or a single input and why it must be online."""

    inputs: tuple[SharedInput, ...]
    makers: Makers | str

    @property
    def names(self) -> str:
        """The linears' names."""
        return ", ".join(shared.names for shared in self.inputs)


def foldables(graph: ir.Graph, inputs: Sequence[SharedInput], skip: tuple[str, ...]) -> Iterator[Foldable]:
    """Each of ``inputs`` once, with what makes it.

    Args:
        graph: of canonical linears.
        inputs: that one transform each is wanted for.
        skip: glob patterns of weights that may not change.
    """
    attentions = [one.values for one in find_attentions(graph) if isinstance(one.values, Values)]
    of_value = {reader.value: values for values in attentions for reader in values.readers}
    left = list(inputs)
    while left:
        shared = left[0]
        group: tuple[SharedInput, ...] = (shared,)
        makers: Makers | str
        try:
            values = of_value.get(shared.value)
            if values is None:
                makers = makers_of(shared.value, shared.nodes, shared.linears[0].shape[0], skip)
            else:
                group, makers = _readers_of(values, inputs), makers_of_values(values, skip)
        except Blocked as blocked:
            group, makers = (shared,), str(blocked)
        left = [one for one in left if one not in group]
        yield Foldable(group, makers)


def fold(
    graph: ir.Graph,
    inputs: Sequence[SharedInput],
    makers: Makers,
    transform: ChannelTransform,
    pass_name: str,
) -> None:
    """Let ``makers`` of ``inputs`` give x · T, and the linears that read them multiply T⁻¹ · w.

    Raises:
        PassError: a linear has no value.
    """
    for place in makers.places:
        _transform(graph, place, inputs[0].linears[0].shape[0], transform, pass_name)
    for shared in inputs:
        shared.reweigh(graph, transform.rows, pass_name)
        for node in shared.nodes:
            note_folded(node, transform, pass_name)


def _transform(graph: ir.Graph, place: Place, K: int, transform: ChannelTransform, pass_name: str) -> None:
    value = place.node.inputs[place.index]
    source = constant(value)
    if value is None or source is None:
        raise AssertionError("makers are constants")
    shape = (*shape_of(source)[:-1], place.width)
    first, end = place.first, place.first + K

    def transformed(array: Array) -> Array:
        floats = np.array(np.broadcast_to(array.astype(np.float32), shape))
        floats[..., first:end] = transform.columns(floats[..., first:end])
        return floats

    tensor = lazy(source, transformed, shape, ir.DataType.FLOAT)
    if place.is_own:
        tensor.name = name_of(value)
        value.const_value = tensor
        return
    node, index = place.node, place.index
    if index == 0:  # of a sum or a product, whose constant stands second
        node.replace_input_with(0, node.inputs[1])
        index = 1
    stem = f"{name_of(node.outputs[0])}.{pass_name}.{index}"
    node.replace_input_with(index, initializer(graph, stem, tensor))
    said = node.metadata_props.get(OWN_CONSTANTS)
    node.metadata_props[OWN_CONSTANTS] = f"{index}" if said is None else f"{said},{index}"


def _readers_of(values: Values, inputs: Sequence[SharedInput]) -> tuple[SharedInput, ...]:
    """Those of ``inputs`` that read the attention ``values``; all its readers must be among them."""
    read_by = {node: shared for shared in inputs for node in shared.nodes}
    found: list[SharedInput] = []
    for reader in values.readers:
        if reader.product.inputs[0] is not reader.value:
            raise Blocked(f"'{reader.name}' multiplies other channels beside attention's")
        shared = read_by.get(reader.product)
        if shared is None:
            raise Blocked(f"'{reader.name}', which stays as it is, reads the same attention")
        if shared not in found:
            found.append(shared)
    return tuple(found)
