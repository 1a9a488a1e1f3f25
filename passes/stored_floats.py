"""Stored floats: a weight as floats, whatever it is stored as, read when it is asked for.

What is found holds the stored tensors and not the graph's nodes, which may be gone when it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from latentc.passes.weights import Floats, constant, read_floats, shape_of


@dataclass(frozen=True)
class StoredFloats:
    """A constant, or what Cast and DequantizeLinear make of one.

    Args:
        shape: of the floats.
        is_float: no codes are behind it.
        sources: the constants that they are made of.
        read: gives them, float32.
    """

    shape: tuple[int, ...]
    is_float: bool
    sources: tuple[ir.TensorProtocol, ...]
    read: Callable[[], Floats]


def stored_floats(value: ir.Value | None) -> StoredFloats | None:
    """How ``value`` is stored; None when it is computed from anything but constants."""
    tensor = constant(value)
    if tensor is not None:
        is_float = tensor.dtype.is_floating_point()
        return StoredFloats(shape_of(tensor), is_float, (tensor,), lambda: read_floats(tensor))
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ("Cast", "DequantizeLinear") or len(node.inputs) > 2:
        return None
    source = stored_floats(node.inputs[0])
    if source is None or node.op_type == "Cast":
        return source
    steps = stored_floats(node.inputs[1])
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    if steps is None:
        return None
    return StoredFloats(
        source.shape,
        False,
        (*source.sources, *steps.sources),
        lambda: source.read() * _spread(steps.read(), source.shape, axis, block),
    )


def _spread(steps: Floats, shape: tuple[int, ...], axis: int, block: int) -> Floats:
    """``steps`` in a form that broadcasts over codes of ``shape``."""
    if block:
        return np.repeat(steps, block, axis=axis)
    if steps.ndim == 0:
        return steps
    return steps.reshape([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])
