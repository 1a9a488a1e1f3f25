"""Smooth: divide what linears multiply by a scale for each channel, and multiply their weights by it.

    before   y = MatMul(x, w)                        w: float32[K, N]
    after    x.smooth = Mul(x, x.scale)              x.scale: float32[K], 1 / s
             y = MatMul(x.smooth, w)                 w: s · w

The same function; but channels of x that stick out do so less, and both x and w lose less when rounded. The
scale is SmoothQuant's (arXiv 2211.10438), s = max|x|^a / max|w|^b, and which a and b is found as in SVDQuant
(arXiv 2411.05007): by what the rounded layer would give, low-rank branch included. Linears that read the same
x share one scale. Where no scale is better than none on held-out rows, the layer stays as it is. Weights and
norms that make x take the scale instead of a Mul (latentc.passes.makers).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.passes.channel_transform import ChannelTransform
from latentc.passes.input_rewrite import InputRewrite, Proposal, Reading
from latentc.passes.options import limits
from latentc.passes.weights import REWRITES_INPUT, Floats, initializer, name_of

_FINALISTS = 6
"""Scales that are judged in full, of those that were compared roughly. The best was among them in all
layers of shapes-flux, for activations of 4 and of 8 bits."""


@dataclass(frozen=True)
class Smooth(InputRewrite):
    """Scale the channels of what linears multiply, so that 4 bits hold them better."""

    name: ClassVar[str] = "smooth"
    version: ClassVar[int] = 4
    considered: ClassVar[str] = "latentc.smoothed"
    mixes_channels: ClassVar[bool] = False

    grid: int = field(default=20, metadata=limits(1, 100, "steps of a and b between 0 and 1"))

    def propose(self, readings: Sequence[Reading], mixes: int) -> Proposal:
        """The scale that loses least on the rows to fit to."""
        (a, b), scale = self._best(readings)
        return Proposal(
            way=f"a={a:g} b={b:g}",
            errors=tuple(self._error(one.weight, one.rows.held_out, scale) for one in readings),
            no_better="no scale is better than none",
            transform=ChannelScale((1 / scale).astype(np.float32)),
        )

    def _best(self, readings: Sequence[Reading]) -> tuple[tuple[float, float], Floats]:
        """The powers and the scale [K] with the least error on the rows to fit to, over all readings."""
        candidates = list(self._candidates(readings))
        rough = np.zeros(len(candidates))
        for one in readings:
            scales = (scale for _, scale in candidates)
            rough += np.square(self.rounding.rough_errors(one.weight, one.rows.fit, scales))
        finalists = [candidates[number] for number in np.argsort(rough, kind="stable")[:_FINALISTS]]
        errors = np.zeros(len(finalists))
        for one in readings:
            exact = one.rows.fit @ one.weight
            errors += np.square(
                [self._error(one.weight, one.rows.fit, scale, exact) for _, scale in finalists]
            )
        best: tuple[tuple[float, float], Floats] = finalists[int(np.argmin(errors))]
        return best

    def _candidates(self, readings: Sequence[Reading]) -> Iterator[tuple[tuple[float, float], Floats]]:
        """Powers and scales, such that each scale is much like the one before."""
        peaks = np.max([np.abs(one.rows.fit).max(axis=0) for one in readings], axis=0)
        sizes = np.max([np.abs(one.weight).max(axis=1) for one in readings], axis=0)
        steps = [index / self.grid for index in range(1, self.grid)]
        for a, b in [(0.0, 0.0), *((a, 0.0) for a in steps), *((a, 1 - a) for a in reversed(steps))]:
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.asarray(peaks**a / sizes**b, dtype=np.float32)
            scale[~np.isfinite(scale) | (scale <= 0)] = 1  # a channel that is always zero
            yield (a, b), scale

    def _error(self, weight: Floats, rows: Floats, scale: Floats, exact: Floats | None = None) -> float:
        return self.rounding.error(weight * scale[:, None], rows / scale, exact)


@dataclass(frozen=True, eq=False)
class ChannelScale(ChannelTransform):
    """T = diag(``factors``), [K] float32, none zero."""

    factors: Floats

    def columns(self, array: Floats) -> Floats:
        """Each channel times its factor."""
        return np.asarray(array * self.factors, dtype=np.float32)

    def rows(self, weight: Floats) -> Floats:
        """Each row over its factor."""
        return np.asarray(weight * (1 / self.factors)[:, None], dtype=np.float32)

    def nodes(self, graph: ir.Graph, value: ir.Value, K: int) -> list[ir.Node]:
        """One Mul."""
        stem = f"{name_of(value)}.smooth"
        stored = initializer(graph, f"{stem}.scale", ir.tensor(self.factors, name=f"{stem}.scale"))
        node = ir.node("Mul", [value, stored])
        node.name = node.outputs[0].name = stem
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        node.metadata_props[REWRITES_INPUT] = Smooth.name
        return [node]
