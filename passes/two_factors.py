"""Two factors: one weight as the product of two thin ones, by what recorded inputs see of it.

before   y = MatMul(x, w)                                w: float32[K, N]
after    w.inner = MatMul(x, w.right)                    w.right: float32[K, R]
         y = MatMul(w.inner, w.left)                     w.left: float32[R, N]

The SVD is that of the weight behind the root of its inputs' moments (SVD-LLM, arXiv 2403.07378), so what is
left out is what the outputs miss least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from latentc.passes.weights import (
    Array,
    Floats,
    JointTensors,
    Linear,
    constant,
    finite_floats,
    initializer,
    name_of,
    read,
    read_floats,
    shape_of,
)

_DAMPING = 1e-2
"""Of the mean moment, on the diagonal, as a record of inputs is never complete: the best of 1e-4 to 0.1 on
held-out inputs of the demo models, by little."""


def output_basis(weight: Floats, moments: Floats | None) -> Floats:
    """Orthonormal V [N, min(K, N)]; x w V[:, :R] Vᵀ[:R] is the best of rank R for inputs of these moments.

    The columns are right singular vectors of moments^½ · ``weight`` [K, N], signs by their largest entry.
    """
    wide = weight.astype(np.float64)
    K, N = wide.shape
    seen = np.eye(K) if moments is None else moments.astype(np.float64)
    seen = seen + _DAMPING * float(np.trace(seen)) / K * np.eye(K)
    if N <= K:
        vectors = np.linalg.eigh(wide.T @ seen @ wide)[1][:, ::-1]
    else:
        half = np.linalg.cholesky(seen).T @ wide
        vectors = np.linalg.svd(half, full_matrices=False)[2].T
    signs = np.where(np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0) < 0, -1, 1)
    return np.ascontiguousarray(vectors * signs, dtype=np.float32)


def rank_losses(weight: Floats, basis: Floats, moments: Floats | None) -> NDArray[np.float64]:
    """[min(K, N) + 1]: for rank R the mean square of what x w loses, relative, for inputs of ``moments``."""
    wide = weight.astype(np.float64)
    seen = wide if moments is None else moments.astype(np.float64) @ wide
    whole = float(np.vdot(wide, seen))
    along = wide @ basis
    through = along if moments is None else moments.astype(np.float64) @ along
    kept = np.concatenate([[0.0], np.cumsum(np.einsum("kr,kr->r", along, through))])
    # E|x w (1 - V Vᵀ)|² = E|x w|² - E|x w V|², as V Vᵀ projects the outputs
    return np.maximum(0.0, 1 - kept / whole) if whole > 0 else np.zeros(len(kept))


def most_rank(K: int, N: int) -> int:
    """The largest rank whose two factors hold fewer parameters than the weight."""
    return max(0, (K * N - 1) // (K + N))


@dataclass(frozen=True)
class Factorable:
    """The first K rows of a weight, all of them in most places, that one linear multiplies by.

    Args:
        weight: [K and more, N], read by ``product`` alone.
        product: the MatMul.
        entry: whose first input is what the K rows multiply: ``product``, or the Concat before it.
        shape: K and N.
    """

    weight: ir.Value
    product: ir.Node
    entry: ir.Node
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        """The weight's name."""
        return name_of(self.weight)

    @property
    def linear(self) -> Linear:
        """The linear, with all rows of its weight."""
        rows, N = shape_of(_source(self.weight))
        return Linear(self.weight, (self.product,), (rows, N))

    def values(self) -> Floats:
        """The K rows, [K, N]."""
        return read_floats(_source(self.weight))[: self.shape[0]]


def put_factors(
    graph: ir.Graph, place: Factorable, rank: int, moments: Floats | None, pass_name: str
) -> None:
    """Put two factors of ``rank`` in the place of the rows; they are computed when they are written.

    Args:
        graph: to change.
        place: what to factor.
        rank: R.
        moments: [K, K] of what the rows multiply; without, they count as they are.
        pass_name: for messages.

    Raises:
        PassError: when they are written: the weight holds NaN or infinity.
    """
    K, N = place.shape
    source = _source(place.weight)
    rows = shape_of(source)[0]

    def compute() -> Mapping[str, Array]:
        weight = finite_floats(read(source), place.name, pass_name)
        kept = output_basis(weight[:K], moments)[:, :rank]
        return {"right": weight[:K] @ kept, "left": np.concatenate([kept.T, weight[K:]])}

    specs = {"right": (ir.DataType.FLOAT, (K, rank)), "left": (ir.DataType.FLOAT, (rows - K + rank, N))}
    joint = JointTensors(compute, specs, (source,), 4 * source.nbytes)
    right, left = (initializer(graph, f"{place.name}.{side}", joint.tensor(side)) for side in specs)
    inner = ir.node("MatMul", [place.entry.inputs[0], right])
    inner.name = inner.outputs[0].name = f"{name_of(place.product.outputs[0])}.inner"
    inner.outputs[0].dtype = ir.DataType.FLOAT
    inner.metadata_props.update(place.product.metadata_props)  # what was noted of one holds for both
    graph.insert_before(place.entry, [inner])
    place.entry.replace_input_with(0, inner.outputs[0])
    if place.entry is not place.product:
        place.entry.outputs[0].shape = None  # narrower now
    place.product.replace_input_with(1, left)
    del graph.initializers[place.name]


def _source(weight: ir.Value) -> ir.TensorProtocol:
    tensor = constant(weight)
    if tensor is None:
        raise AssertionError("a weight to factor is a constant")
    return tensor
