"""Channel transform: a change of an input's channels that the weights behind it undo.

    x · T instead of x, and T⁻¹ · w instead of w: the same product

T is put before the linears as nodes, or folded into what makes x (latentc.passes.foldable). Then no node
tells of it, and recorded rows must still follow: the transform is kept with the MatMuls that read x.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.weights import Floats

FOLDED = "latentc.folded"
"""Node metadata on a MatMul: the passes that folded a transform of its input, in order. The transforms stand
under the same key in the node's meta, which is never written."""


class ChannelTransform(ABC):
    """T: an invertible [K, K] matrix, kept as what it does."""

    @abstractmethod
    def columns(self, array: Floats) -> Floats:
        """``array`` [..., K] · T: rows that linears multiply, or weights and biases that make them."""

    @abstractmethod
    def rows(self, weight: Floats) -> Floats:
        """T⁻¹ · ``weight`` [K, N]."""

    @abstractmethod
    def nodes(self, graph: ir.Graph, value: ir.Value, K: int) -> list[ir.Node]:
        """Nodes, the last of which gives ``value`` · T, marked with REWRITES_INPUT where they change it.

        Args:
            graph: gets their constants; the nodes are for the caller to put.
            value: [..., K].
            K: its channels.
        """


def note_folded(node: ir.Node, transform: ChannelTransform, pass_name: str) -> None:
    """Keep with the MatMul ``node`` that what makes its input gives input · T by now."""
    node.meta[FOLDED] = (*folded_before(node, pass_name), transform)
    said = node.metadata_props.get(FOLDED)
    node.metadata_props[FOLDED] = pass_name if said is None else f"{said}, {pass_name}"


def folded_before(node: ir.Node, pass_name: str) -> tuple[ChannelTransform, ...]:
    """What was folded into the makers of the input of the MatMul ``node``, in order.

    Raises:
        PassError: the graph was written since, and the transforms are gone.
    """
    said = node.metadata_props.get(FOLDED)
    kept = node.meta.get(FOLDED)
    if said is None:
        return ()
    if not isinstance(kept, tuple):
        raise PassError(
            f"{pass_name}: '{node.name or node.outputs[0].name}'",
            f"its input was rewritten by {said} before the model was written, so recorded rows do not fit",
            f"run {said} and {pass_name} in one sequence of passes, or {said} with fold: false",
        )
    return kept
