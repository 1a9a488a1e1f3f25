"""Pass seconds: what fitting and rounding a component's weights takes on this machine.

Figures are processor seconds for a million weights of a 3072 × 3072 linear (``make bench-passes``), at the
speeds that the probe had on the machine that gave them; what depends on the inputs' number says so.
"""

from __future__ import annotations

import onnx_ir as ir

from latentc.compiler.forecast.machine import Machine
from latentc.passes.allocate import Allocate
from latentc.passes.base import Pass
from latentc.passes.int4_layers import int4_linears
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8 import QuantizeInt8
from latentc.passes.rounding import Rounding
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weights import constant, find_convolutions, matches, shape_of

_ROUND_S = 0.0125
"""round_s of the machine that _A_MILLION was measured on."""
_WIDTH = 3072
_A_MILLION = {"smooth": 2.3, "rotate": 0.25, "allocate": 2.9, "split-subspace": 0.65}
_SPLIT, _REFINEMENT, _CALIBRATED, _ROUND, _GPTQ, _ESTIMATE = 0.03, 0.05, 1.5, 0.02, 0.47, 2.6
_CONVOLUTION, _NNCF_S = 0.17, 3.0
_MOST_WORKERS = 4
"""Layers that are computed at once, at most: latentc.compiler.budget."""


def pass_seconds(one: Pass, model: ir.Model, machine: Machine) -> float:
    """Of ``one`` on ``model``, a weightless graph; 0 for what changes no weight."""
    scale = machine.speeds.round_s / _ROUND_S
    if isinstance(one, QuantizeInt8):
        kernels = [found for found in find_convolutions(model.graph) if not matches(found.name, one.skip)]
        if not kernels:
            return 0.0
        return _NNCF_S + scale * _CONVOLUTION * 1e-6 * sum(_count(found.weight) for found in kernels)
    if one.name not in (*_A_MILLION, "split-low-rank", "quantize-int4"):
        return 0.0
    group = getattr(one, "group", 64)
    skip = getattr(one, "skip", ())
    shapes = [found.shape for found, why in int4_linears(model.graph, group, skip) if why is None]
    if isinstance(one, Allocate) and one.plan:
        return 0.0  # nothing is left to find out
    workers = min(_MOST_WORKERS, machine.threads)
    return scale / workers * sum(1e-6 * K * N * _a_million(one, K) for K, N in shapes)


def _a_million(one: Pass, K: int) -> float:
    wide = K / _WIDTH
    if isinstance(one, SplitLowRank):
        if one.calibrated:
            return _CALIBRATED * wide * (2 if one.rounding is Rounding.GPTQ else 1)
        return _SPLIT + one.refinements * _REFINEMENT
    if isinstance(one, QuantizeInt4):
        if one.rounding is Rounding.GPTQ:
            return _GPTQ * wide
        return _ESTIMATE if one.rounding is Rounding.SCALE_ESTIMATION else _ROUND
    return _A_MILLION[one.name]


def _count(value: ir.Value) -> int:
    tensor = constant(value)
    total = 1
    for side in () if tensor is None else shape_of(tensor):
        total *= side
    return total
