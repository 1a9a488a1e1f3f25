"""Smooth: divide what linears multiply by a scale for each channel, and multiply their weights by it.

    before   y = MatMul(x, w)                        w: float32[K, N]
    after    x.smooth = Mul(x, x.scale)              x.scale: float32[K], 1 / s
             y = MatMul(x.smooth, w)                 w: s · w

The same function; but channels of x that stick out do so less, and both x and w lose less when rounded. The
scale is SmoothQuant's (arXiv 2211.10438), s = max|x|^a / max|w|^b, and which a and b is found as in SVDQuant
(arXiv 2411.05007): by what the rounded layer would give, low-rank branch included. Linears that read the same
x share one scale. Where no scale is better than none on held-out rows, the layer stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.passes.input_rewrite import InputRewrite, Proposal
from latentc.passes.layer_rows import Rows
from latentc.passes.options import limits
from latentc.passes.shared_inputs import SharedInput
from latentc.passes.weights import REWRITES_INPUT, Floats, initializer, name_of

_FINALISTS = 6
"""Scales that are judged in full, of those that were compared roughly. The best was among them in all
layers of shapes-flux, for activations of 4 and of 8 bits."""


@dataclass(frozen=True)
class Smooth(InputRewrite):
    """Scale the channels of what linears multiply, so that 4 bits hold them better."""

    name: ClassVar[str] = "smooth"
    version: ClassVar[int] = 2
    considered: ClassVar[str] = "latentc.smoothed"

    grid: int = field(default=20, metadata=limits(1, 100, "steps of a and b between 0 and 1"))

    def propose(self, weight: Floats, rows: Rows) -> Proposal:
        """The scale that loses least on the rows to fit to."""
        (a, b), scale = self._best(weight, rows)
        return Proposal(
            way=f"a={a:g} b={b:g}",
            error=self._error(weight, rows.held_out, scale),
            no_better="no scale is better than none",
            rewrite=partial(_scale, scale=scale),
        )

    def _best(self, weight: Floats, rows: Rows) -> tuple[tuple[float, float], Floats]:
        """The powers and the scale [K] with the least error on the rows to fit to."""
        candidates = list(self._candidates(weight, rows.fit))
        rough = self.rounding.rough_errors(weight, rows.fit, (scale for _, scale in candidates))
        order = sorted(zip(rough, range(len(candidates)), strict=True))
        finalists = [candidates[number] for _, number in order[:_FINALISTS]]
        exact = rows.fit @ weight
        errors = [self._error(weight, rows.fit, scale, exact) for _, scale in finalists]
        return finalists[int(np.argmin(errors))]

    def _candidates(self, weight: Floats, rows: Floats) -> Iterator[tuple[tuple[float, float], Floats]]:
        """Powers and scales, such that each scale is much like the one before."""
        peaks, sizes = np.abs(rows).max(axis=0), np.abs(weight).max(axis=1)
        steps = [index / self.grid for index in range(1, self.grid)]
        for a, b in [(0.0, 0.0), *((a, 0.0) for a in steps), *((a, 1 - a) for a in reversed(steps))]:
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.asarray(peaks**a / sizes**b, dtype=np.float32)
            scale[~np.isfinite(scale) | (scale <= 0)] = 1  # a channel that is always zero
            yield (a, b), scale

    def _error(self, weight: Floats, rows: Floats, scale: Floats, exact: Floats | None = None) -> float:
        return self.rounding.error(weight * scale[:, None], rows / scale, exact)


def _scale(graph: ir.Graph, shared: SharedInput, scale: Floats) -> None:
    stem = f"{name_of(shared.value)}.smooth"
    inverse = (1 / scale).astype(np.float32)
    factors = (1 / inverse).astype(np.float32)
    value = initializer(graph, f"{stem}.scale", ir.tensor(inverse, name=f"{stem}.scale"))
    node = ir.node("Mul", [shared.value, value])
    node.name = node.outputs[0].name = stem
    node.outputs[0].type, node.outputs[0].shape = shared.value.type, shared.value.shape
    node.metadata_props[REWRITES_INPUT] = Smooth.name
    shared.rewrite(graph, [node], lambda weight: weight * factors[:, None], Smooth.name)
