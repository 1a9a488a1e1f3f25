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
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal, Trial
from latentc.passes.int4_layers import require_canonical_linears
from latentc.passes.layer_rows import Rows, rows_of
from latentc.passes.options import limits, require_4_or_8_bits, require_power_of_two
from latentc.passes.rounded_error import RoundingToCome
from latentc.passes.shared_inputs import SharedInput, shared_inputs
from latentc.passes.weights import (
    REWRITES_INPUT,
    Array,
    Floats,
    initializer,
    lazy,
    name_of,
    replace_initializer,
)

SMOOTHED = "latentc.smoothed"
"""Node metadata on a linear that smooth has considered."""


@dataclass(frozen=True)
class Smooth(Pass):
    """Scale the channels of what linears multiply, so that 4 bits hold them better."""

    name: ClassVar[str] = "smooth"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    grid: int = field(default=20, metadata=limits(1, 100, "steps of a and b between 0 and 1"))
    bits: int = field(default=4, metadata=limits(4, 8, "of the activations to come: 4 or 8"))
    group: int = field(default=64, metadata=limits(16, 256, "of the quantization to come"))
    rank: int = field(default=32, metadata=limits(0, 4096, "of the low-rank branch to come; 0 for none"))
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights to leave alone, * matches any text")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)
        require_4_or_8_bits(self.name, self.bits)

    @property
    def needs_calibration(self) -> bool:
        """Recorded rows decide."""
        return True

    @property
    def needs_rows(self) -> bool:
        """Recorded rows decide."""
        return True

    @property
    def rounding(self) -> RoundingToCome:
        """What the layers are prepared for."""
        return RoundingToCome(self.bits, self.group, self.rank)

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with float [K, N] constants."""
        require_canonical_linears(self.name, model)

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Scale every value that linears read, where held-out rows say that it helps."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for shared, refusal in list(shared_inputs(model.graph, self.group, self.skip, SMOOTHED)):
            if refusal is not None:
                refusals.append(refusal)
                continue
            rows = rows_of(self.name, shared.linears[0], context)
            weight = shared.weight(self.name)
            (a, b), scale = self._best(weight, rows)
            before = self.rounding.error(weight, rows.held_out)
            after = self._error(weight, rows.held_out, scale)
            better = after < before
            shared.mark(SMOOTHED, self.name)
            for linear in shared.linears:
                context.ledger.try_out(Trial(linear.name, self.name, "as it is", before, not better))
                context.ledger.try_out(Trial(linear.name, self.name, f"a={a:g} b={b:g}", after, better))
            if better:
                _scale(model.graph, shared, scale)
                changes.append(
                    Change(shared.names, f"a={a:g} b={b:g}: held-out error {before:.4f} to {after:.4f}")
                )
            else:
                refusals.append(
                    Refusal(shared.names, f"no scale is better than none on held-out rows ({after:.4f})")
                )
        return PassResult(model, tuple(changes), tuple(refusals))

    def _best(self, weight: Floats, rows: Rows) -> tuple[tuple[float, float], Floats]:
        """The powers and the scale [K] with the least error on the rows to fit to."""
        found = [
            (self._error(weight, rows.fit, scale), powers, scale)
            for powers, scale in self._candidates(weight, rows.fit)
        ]
        _, powers, scale = min(found, key=lambda one: one[0])
        return powers, scale

    def _candidates(self, weight: Floats, rows: Floats) -> Iterator[tuple[tuple[float, float], Floats]]:
        peaks, sizes = np.abs(rows).max(axis=0), np.abs(weight).max(axis=1)
        steps = [index / self.grid for index in range(1, self.grid)]
        for a, b in [(0.0, 0.0), *((a, 0.0) for a in steps), *((a, 1 - a) for a in steps)]:
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.asarray(peaks**a / sizes**b, dtype=np.float32)
            scale[~np.isfinite(scale) | (scale <= 0)] = 1  # a channel that is always zero
            yield (a, b), scale

    def _error(self, weight: Floats, rows: Floats, scale: Floats) -> float:
        return self.rounding.error(weight * scale[:, None], rows / scale)


def _scale(graph: ir.Graph, shared: SharedInput, scale: Floats) -> None:
    stem = f"{name_of(shared.value)}.smooth"
    inverse = (1 / scale).astype(np.float32)
    factors = (1 / inverse).astype(np.float32)
    value = initializer(graph, f"{stem}.scale", ir.tensor(inverse, name=f"{stem}.scale"))
    node = ir.node("Mul", [shared.value, value])
    node.name = node.outputs[0].name = stem
    node.outputs[0].type, node.outputs[0].shape = shared.value.type, shared.value.shape
    node.metadata_props[REWRITES_INPUT] = Smooth.name
    graph.insert_before(shared.nodes[0], [node])
    for linear in shared.linears:
        source = linear.weight.const_value
        if source is None:
            raise PassError(Smooth.name, f"'{linear.name}' has no value", "report this graph")

        def scaled(array: Array, factors: Floats = factors) -> Array:
            return np.asarray(array.astype(np.float32) * factors[:, None])

        replace_initializer(graph, linear.weight, lazy(source, scaled, linear.shape, ir.DataType.FLOAT))
        for reader in linear.nodes:
            reader.replace_input_with(0, node.outputs[0])
