"""Stored loss: what a linear's output loses, on recorded rows, when it is stored as an allotment says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentc.passes.allotment import Allotment, Precision
from latentc.passes.int4_weight import int4_weight
from latentc.passes.int8_weight import int8_weight
from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.quantize_activations import rounded_rows
from latentc.passes.rounded_error import output_error
from latentc.passes.rounding import Rounding, gptq_weight
from latentc.passes.subspace import leading_subspace, split_along
from latentc.passes.weights import Floats

_REFINEMENTS = 2  # of branches: more of them improve every rank alike, and cost most of the time


@dataclass(frozen=True)
class StoredLoss:
    """How the passes to come will store linears.

    Args:
        group: inputs that share a step.
        branch: how low-rank branches are stored.
        rounding: of INT4 weights: nearest or GPTQ.
    """

    group: int
    branch: BranchType
    rounding: Rounding

    def of(
        self, weight: Floats, allotment: Allotment, moments: Floats, rows: Floats, activation_bits: int
    ) -> float:
        """Relative error of the linear's output.

        Args:
            weight: [K, N], finite.
            allotment: how it is stored.
            moments: [K, K] of what it multiplies, to fit to.
            rows: [R, K] of what it multiplies, to judge by.
            activation_bits: what INT4 linears multiply: 4, 8, or 16 for floats. INT8 linears take 8 at least.
        """
        if allotment.precision is Precision.FLOAT:
            return 0.0
        size = float(np.linalg.norm(rows @ weight))
        if allotment.precision is Precision.INT8:
            held = int8_weight(weight).floats()
            rounded = self._rounded(rows, max(8, activation_bits))
            return output_error(weight, np.zeros_like(weight), held, rows, rounded, size)
        if allotment.subspace:
            subspace = leading_subspace(moments, allotment.subspace)
            weight, rows = split_along(weight, subspace).rest, subspace.removed_from(rows)
            moments = subspace.moments_left(moments)
        product = np.zeros_like(weight)
        if allotment.rank:
            product = low_rank_branch(
                weight, allotment.rank, self.branch, self.group, _REFINEMENTS, moments, Rounding.NEAREST
            ).product()
        rest, rounded = weight - product, self._rounded(rows, activation_bits)
        nearest = int4_weight(rest, self.group)
        ways = [nearest]
        if self.rounding is Rounding.GPTQ:  # taken where held-out inputs agree
            ways.append(gptq_weight(rest, nearest.steps, moments))
        return min(output_error(weight, product, way.floats(), rows, rounded, size) for way in ways)

    def _rounded(self, rows: Floats, bits: int) -> Floats:
        return rows if bits == 16 else rounded_rows(rows, bits, self.group)
