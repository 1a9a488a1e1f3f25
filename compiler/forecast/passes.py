"""Foretold passes: what a recipe's passes leave to store, without a record or a weight to look at.

Most passes decide by shapes and names what they store, and run as they are, on a graph without weights. Those
that fit values to records store the same bytes when they do not; three need a stand-in:

    allocate without a plan    INT4 for all linears, INT8 for the smallest while its budget of bytes lasts
    quantize-int8              steps of activations are one number each, whatever they are
    split-subspace             the directions have no values

smooth, rotate and compress-heads look at values alone and are left out: folded scales take nothing, the
others K numbers an input; heads are foretold as if they stayed whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from latentc.passes.allocate import Allocate
from latentc.passes.allotment import Allotment, Precision, allot
from latentc.passes.base import LossLedger, Pass, PassContext
from latentc.passes.cost import Budget, byte_cost
from latentc.passes.int4_layers import int4_linears
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8 import QuantizeInt8, quantize_kernel
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights
from latentc.passes.quantized_input import quantized_input
from latentc.passes.rounding import Rounding
from latentc.passes.shared_inputs import SharedInput, shared_inputs
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.split_subspace import SUBSPACE, SplitSubspace, split_off
from latentc.passes.subspace import Subspace
from latentc.passes.weights import find_convolutions, matches


def foretell(model: ir.Model, passes: Sequence[Pass]) -> ir.Model:
    """``model`` as ``passes`` would leave it, as far as bytes go; ``model`` stays as it is.

    Args:
        model: a weightless graph.
        passes: of one component, in order.

    Raises:
        PassError: a pass does not fit the graph, as it would say when it runs.
    """
    context = PassContext()
    for one in passes:
        if isinstance(one, Allocate) and not one.plan:
            model = model.clone()
            _allocate(model, one)
        elif isinstance(one, QuantizeInt8):
            model = model.clone()
            _quantize_convolutions(model.graph, one)
        elif isinstance(one, SplitSubspace):
            model = model.clone()
            _split_subspaces(model.graph, one)
        elif (unfitted := _unfitted(one)) is not None:
            model = unfitted(model, context).model
    return model


def _unfitted(one: Pass) -> Pass | None:
    """``one`` without what it fits to records; None when nothing of it is stored."""
    if isinstance(one, QuantizeInt4):
        return replace(one, rounding=Rounding.NEAREST, sequential=False, optional=True)
    if isinstance(one, SplitLowRank):
        return replace(one, calibrated=False, rounding=Rounding.NEAREST, optional=True)
    if isinstance(one, QuantizeInt8Weights):
        return replace(one, static=False, optional=True)
    return replace(one, optional=True) if isinstance(one, Allocate) else None


def _allocate(model: ir.Model, one: Allocate) -> None:
    """INT4 for all, then INT8 for one after another, the smallest first, as long as the budget lasts."""
    linears = [linear for linear, why in int4_linears(model.graph, one.group, one.skip) if why is None]
    if not linears:
        return
    narrow = Allotment(Precision.INT4 if "int4" in one.precisions else Precision.INT8)
    wide = Allotment(Precision.INT8 if "int8" in one.precisions else narrow.precision)
    cost = byte_cost(model, linears, one.group, one.branch)
    left = cost.budget(one.max_ratio) - sum(cost.of_linear(linear, narrow) for linear in linears)
    for linear in sorted(linears, key=lambda linear: linear.shape[0] * linear.shape[1]):
        more = cost.of_linear(linear, wide) - cost.of_linear(linear, narrow)
        takes_more = one.budget is Budget.BYTES and more <= left
        left -= more if takes_more else 0
        allot(linear, wide if takes_more else narrow)


def _quantize_convolutions(graph: ir.Graph, one: QuantizeInt8) -> None:
    for convolution in list(find_convolutions(graph)):
        source = convolution.node.inputs[0]
        if source is not None and not matches(convolution.name, one.skip):
            convolution.node.replace_input_with(0, quantized_input(graph, source, 1.0))
            quantize_kernel(graph, convolution, LossLedger())


def _split_subspaces(graph: ir.Graph, one: SplitSubspace) -> None:
    for shared, refusal in list(shared_inputs(graph, one.group, one.skip, SUBSPACE)):
        if refusal is not None:
            continue
        for rank, linears in one.by_rank(shared).items():
            if rank:
                K = linears[0].shape[0]
                nothing = Subspace(np.zeros((K, rank), np.int8), np.zeros(rank, np.float16))
                split_off(graph, SharedInput(shared.value, linears), nothing)
