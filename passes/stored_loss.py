"""Stored loss: what a linear's output loses, on recorded rows, when it is stored as an allotment says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latentc.passes.allotment import Allotment, Precision
from latentc.passes.gptq import RowFactor, row_factor
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
    """How the passes to come may store a linear, and what they are judged by.

    Args:
        group: inputs that share a step.
        branch: how low-rank branches are stored.
        rounding: of INT4 weights: nearest or GPTQ.
        weight: [K, N], finite.
        moments: [K, K] of what the linear multiplies, to fit to.
        rows: [R, K] of what it multiplies, to judge by.
        activation_bits: what INT4 linears multiply: 4, 8, or 16 for floats. INT8 linears take 8 at least.
        symmetric: whether activations are.
    """

    group: int
    branch: BranchType
    rounding: Rounding
    weight: Floats
    moments: Floats
    rows: Floats
    activation_bits: int
    symmetric: bool = True

    def of(self, allotment: Allotment) -> float:
        """Relative error of the linear's output when it is stored as ``allotment`` says."""
        if allotment.precision is Precision.FLOAT:
            return 0.0
        if allotment.precision is Precision.INT8:
            held = int8_weight(self.weight).floats()
            return output_error(
                self._whole.exact, self._rounded(self.rows, max(8, self.activation_bits)), held
            )
        part = self._apart(allotment.subspace) if allotment.subspace else self._whole
        rest, beside = part.weight, None
        if allotment.rank:
            branch = low_rank_branch(
                rest, allotment.rank, self.branch, self.group, _REFINEMENTS, part.moments, Rounding.NEAREST
            )
            rest, beside = rest - branch.product(), branch.outputs(part.rows)
        nearest = int4_weight(rest, self.group)
        ways = [nearest]
        if part.factor is not None:  # taken where held-out inputs agree
            ways.append(gptq_weight(rest, nearest.steps, part.factor))
        return min(output_error(part.exact, part.rounded, way.floats(), beside, self._size) for way in ways)

    @cached_property
    def _whole(self) -> _Part:
        return self._part(self.weight, self.moments, self.rows)

    @cached_property
    def _size(self) -> float:
        return float(np.linalg.norm(self._whole.exact))

    def _apart(self, directions: int) -> _Part:
        """What is left when the input's leading ``directions`` go another way."""
        subspace = leading_subspace(self.moments, directions)
        return self._part(
            split_along(self.weight, subspace).rest,
            subspace.moments_left(self.moments),
            subspace.removed_from(self.rows),
        )

    def _part(self, weight: Floats, moments: Floats, rows: Floats) -> _Part:
        factor = row_factor(moments) if self.rounding is Rounding.GPTQ else None
        rounded = self._rounded(rows, self.activation_bits)
        return _Part(weight, moments, rows, rows @ weight, rounded, factor)

    def _rounded(self, rows: Floats, bits: int) -> Floats:
        return rows if bits == 16 else rounded_rows(rows, bits, self.group, symmetric=self.symmetric)


@dataclass(frozen=True)
class _Part:
    """What is the same for INT4 weights with branches of any rank.

    Args:
        weight: [K, N].
        moments: [K, K].
        rows: [R, K], before they are rounded, which is what branches multiply.
        exact: [R, N], what the weight gives for them.
        rounded: [R, K].
        factor: of the moments, where GPTQ rounds.
    """

    weight: Floats
    moments: Floats
    rows: Floats
    exact: Floats
    rounded: Floats
    factor: RowFactor | None
