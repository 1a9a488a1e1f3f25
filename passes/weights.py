"""Weights: find the linears and convolutions of a graph, and compose lazy programs on what they store.

A program is a function that is called when the weight is written. What one computation yields for
several tensors (codes and scales, left, right and rest) is computed once and dropped after the last
of them was taken, so the memory in use is a layer or two, whatever the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from latentc.errors import PassError

Array: TypeAlias = "NDArray[np.generic]"
Floats: TypeAlias = NDArray[np.float32]
TensorSpec: TypeAlias = "tuple[ir.DataType, tuple[int, ...]]"

SPLIT_RANK = "latentc.rank"
"""Node metadata on a MatMul that split-low-rank has split: the rank of its branch."""
SPLIT_GROUP = "latentc.group"
"""Node metadata beside SPLIT_RANK: the group of quantize-int4 that the rank was chosen for."""
BRANCH_OF = "latentc.branch_of"
"""Node metadata on the two MatMuls of a low-rank branch: the name of the weight that was split."""
REWRITES_INPUT = "latentc.rewrites_input"
"""Node metadata on nodes that a pass put before linears: Mul and MatMul by a constant, Reshape."""
OWN_CONSTANTS = "latentc.own_constants"
"""Node metadata: which inputs became vectors of its own, in place of a scalar or a shared one, when a pass
folded a scale into them; numbers with commas between."""
SMALLEST_STEP = np.float32(2.0**-24)
"""The smallest positive float16: the step of what is all zeros."""
ORIGINAL = "latentc.original"
"""Tensor meta of a rewritten weight: the tensor that its loss is measured against. Never written."""
ORIGINAL_NORM = "latentc.original_norm"
"""Tensor meta beside ORIGINAL: gives the norm of that tensor once the weight was computed. Never written."""
PROGRAM = "latentc.program"
"""Tensor meta of what a program yields: the Program. Never written."""


@dataclass(frozen=True)
class Linear:
    """A constant [K, N] and the MatMul nodes that multiply by it from the right."""

    weight: ir.Value
    nodes: tuple[ir.Node, ...]
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        """The weight's name."""
        return name_of(self.weight)


@dataclass(frozen=True)
class Convolution:
    """A Conv node and its constant kernel [N, C, …]."""

    weight: ir.Value
    node: ir.Node
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The kernel's name."""
        return name_of(self.weight)


def name_of(value: ir.Value) -> str:
    """The name of ``value``; graphs that come from files have no nameless values."""
    return value.name or "nameless"


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer that no caller of the graph can overwrite; None for anything else."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def shape_of(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a stored tensor."""
    return tuple(int(side) for side in tensor.shape.numpy())


def find_linears(graph: ir.Graph) -> Iterator[Linear]:
    """Every weight that a MatMul multiplies by from the right, in graph order, branches left out."""
    seen: set[str] = set()
    for node in graph:
        if node.op_type != "MatMul" or node.domain or BRANCH_OF in node.metadata_props:
            continue
        weight = node.inputs[1]
        tensor = constant(weight)
        if weight is None or tensor is None or len(tensor.shape) != 2 or name_of(weight) in seen:
            continue
        seen.add(name_of(weight))
        users = tuple(use.node for use in weight.uses() if use.node.op_type == "MatMul" and use.idx == 1)
        K, N = shape_of(tensor)
        yield Linear(weight, users, (K, N))


def find_convolutions(graph: ir.Graph) -> Iterator[Convolution]:
    """Every Conv with a constant kernel, in graph order."""
    for node in graph:
        if node.op_type == "Conv" and not node.domain:
            weight = node.inputs[1]
            tensor = constant(weight)
            if weight is not None and tensor is not None:
                yield Convolution(weight, node, shape_of(tensor))


def bias_add(node: ir.Node) -> ir.Node | None:
    """The Add of a constant vector that alone reads the output of ``node``, if there is one."""
    output = node.outputs[0]
    uses = list(output.uses())
    if output.is_graph_output() or len(uses) != 1 or uses[0].node.op_type != "Add":
        return None
    add = uses[0].node
    vector = constant(add.inputs[1 - uses[0].idx])
    return add if vector is not None and len(vector.shape) == 1 else None


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether ``name`` fits one of the glob ``patterns``, upper and lower case told apart."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def read(tensor: ir.TensorProtocol) -> Array:
    """The values of ``tensor``; a memory-mapped file is closed again."""
    if not isinstance(tensor, ir.ExternalTensor):
        return np.asarray(tensor.numpy())
    array = np.array(tensor.numpy())  # a copy: a mapped file cannot be closed while an array looks at it
    tensor.release()
    return array


def read_floats(tensor: ir.TensorProtocol) -> Floats:
    """The values of ``tensor`` as float32."""
    return np.asarray(read(tensor)).astype(np.float32)


def constant_floats(value: ir.Value | None) -> Floats | None:
    """A constant, or what Cast, Transpose and DequantizeLinear by columns make of one; None for others."""
    node = value.producer() if value is not None else None
    if node is None:
        tensor = constant(value)
        return None if tensor is None else read_floats(tensor)
    first = constant_floats(node.inputs[0]) if node.inputs else None
    if first is None or node.op_type == "Cast":
        return first
    if node.op_type == "Transpose" and first.ndim == 2:
        return first.T
    if node.op_type == "DequantizeLinear" and node.attributes.get_int("axis", 1) == 1:
        steps = constant_floats(node.inputs[1])
        return None if steps is None else first * steps
    return None


def finite_floats(array: Array, name: str, pass_name: str) -> Floats:
    """``array``, the values of the weight ``name``, as float32; raises PassError when one is not finite."""
    floats = array.astype(np.float32)
    _require_finite(floats, name, pass_name)
    return floats


def own_floats(tensor: ir.TensorProtocol, name: str, pass_name: str) -> Floats:
    """The values of ``tensor``, the weight ``name``, as float32 that the caller may overwrite.

    Raises:
        PassError: one is not finite.
    """
    array = read(tensor)
    is_own = isinstance(tensor, ir.LazyTensor) and array.flags.writeable
    floats = array.astype(np.float32, copy=not is_own)
    _require_finite(floats, name, pass_name)
    return floats


def _require_finite(floats: Floats, name: str, pass_name: str) -> None:
    lying = floats.ravel(order="K")  # a view; the sum of squares needs no memory and is rarely too large
    if not np.isfinite(np.vdot(lying, lying)) and not np.isfinite(floats).all():
        raise PassError(pass_name, f"'{name}' holds NaN or infinity", "check the checkpoint")


@dataclass(frozen=True, eq=False)
class Program:
    """One computation that yields tensors when they are written.

    Args:
        sources: every tensor that it reads.
        results_bytes: of all that it yields.
        work_bytes: memory that it takes at most, results included, besides what it reads.
    """

    sources: tuple[ir.TensorProtocol, ...]
    results_bytes: int
    work_bytes: int


def lazy(
    tensor: ir.TensorProtocol,
    program: Callable[[Array], Array],
    shape: tuple[int, ...],
    dtype: ir.DataType,
    work_bytes: int | None = None,
) -> ir.LazyTensor:
    """``program`` applied to ``tensor`` when its values are asked for; no sooner, and nothing is kept.

    ``work_bytes`` is that of Program; None when the program makes the result and nothing else.
    """

    def compute() -> ir.TensorProtocol:
        values = read(tensor)
        result = np.asarray(program(values))
        if not isinstance(tensor, ir.LazyTensor) and np.may_share_memory(result, values):
            result = result.copy(order="K")  # whoever asks may overwrite it
        return ir.Tensor(result, dtype=dtype)

    made = ir.LazyTensor(compute, dtype, ir.Shape(shape))
    made.meta[PROGRAM] = Program((tensor,), made.nbytes, made.nbytes if work_bytes is None else work_bytes)
    return made


class JointTensors:
    """Tensors that one computation yields together.

    The computation runs when the first of them is asked for; each of its results is kept until it was taken.
    Asking again runs it again.
    """

    def __init__(
        self,
        compute: Callable[[], Mapping[str, Array]],
        specs: Mapping[str, TensorSpec],
        sources: Sequence[ir.TensorProtocol],
        work_bytes: int,
    ) -> None:
        """Remember ``compute`` and what it will yield.

        Args:
            compute: gives arrays that nobody else has, by key.
            specs: data type and shape by key.
            sources: every tensor that it reads.
            work_bytes: as in Program.
        """
        self._compute = compute
        self._specs = dict(specs)
        self._results: dict[str, Array] = {}
        results_bytes = sum(math.ceil(math.prod(shape) * dtype.itemsize) for dtype, shape in specs.values())
        self._program = Program(tuple(sources), results_bytes, work_bytes)

    def tensor(self, key: str) -> ir.LazyTensor:
        """The lazy tensor for one key."""
        dtype, shape = self._specs[key]
        tensor = ir.LazyTensor(lambda: self._take(key), dtype, ir.Shape(shape))
        tensor.meta[PROGRAM] = self._program
        return tensor

    def _take(self, key: str) -> ir.TensorProtocol:
        if key not in self._results:
            results = self._compute()
            self._results = {name: _as(results[name], dtype) for name, (dtype, _) in self._specs.items()}
        dtype, shape = self._specs[key]
        array = self._results.pop(key)
        if dtype is ir.DataType.INT4:
            return ir.PackedTensor(array, dtype, shape=shape)
        return ir.Tensor(array, dtype=dtype)


def _as(array: Array, dtype: ir.DataType) -> Array:
    """``array`` in ``dtype``; INT4 as two codes a byte, the first in the lower half."""
    if dtype is not ir.DataType.INT4:
        return np.asarray(array).astype(dtype.numpy(), copy=False)
    codes = np.ascontiguousarray(array, np.int8).reshape(-1)
    packed = np.bitwise_and(codes[::2], 0xF).view(np.uint8)
    packed[: codes.size // 2] |= codes[1::2].view(np.uint8) << 4
    return packed


def initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer of ``graph`` called ``name``, which must be free."""
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(shape_of(tensor)), const_value=tensor
    )
    tensor.name = name
    graph.register_initializer(value)
    return value


def replace_initializer(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
    """Let ``tensor`` take the name and the place of the initializer ``value``."""
    name = name_of(value)
    del graph.initializers[name]
    replacement = initializer(graph, name, tensor)
    value.replace_all_uses_with(replacement)
    return replacement
