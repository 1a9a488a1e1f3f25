"""Quantize-int4: store the weights of linears as 4-bit integers with a step for each group of inputs.

    before   y = MatMul(x, w)                    w: float32[K, N]
    after    w = DequantizeLinear(w.codes, Cast(w.steps))      axis 0, blocks of ``group``
             y = MatMul(x, w)                    w.codes: int4[K, N], w.steps: float16[K / group, N]

Codes are the nearest ones, or those of GPTQ where recorded inputs show that these serve better. With
``sequential`` each linear is judged, and GPTQ fitted, on what the linears before it leave of its input once
they are quantized (latentc.passes.walk), against what it gave in the original; GPTQ then also gets a third
way, with the weight corrected for that drift before it is rounded.

This is the form that onnxruntime fuses into MatMulNBits and that TensorRT keeps packed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.base import Change, LayerLoss, LossLedger, Pass, PassContext, PassResult, Refusal, Trial
from latentc.passes.branch_nodes import branch_product
from latentc.passes.calibration import read_samples
from latentc.passes.drifted_ways import drifted_ways
from latentc.passes.gptq import row_factor
from latentc.passes.int4_layers import int4_linears, other_weights, require_canonical_linears
from latentc.passes.int4_weight import Int4Weight, int4_weight, int4_weight_and_error
from latentc.passes.layer_inputs import moments_of
from latentc.passes.layer_rows import rows_of
from latentc.passes.moments import Moments, output_norm
from latentc.passes.options import limits, require_power_of_two
from latentc.passes.quantized_linear import replace_by_codes
from latentc.passes.rounding import Rounding, gptq_weight, scale_estimated_weight
from latentc.passes.walk import Drift, walk
from latentc.passes.weights import (
    ORIGINAL,
    ORIGINAL_NORM,
    SPLIT_GROUP,
    Array,
    Floats,
    Linear,
    finite_floats,
    own_floats,
    read,
    read_floats,
)


@dataclass(frozen=True)
class QuantizeInt4(Pass):
    """Quantize the weights of linears to symmetric INT4; activations stay as they are."""

    name: ClassVar[str] = "quantize-int4"
    version: ClassVar[int] = 5
    preserves: ClassVar[bool] = False

    group: int = field(default=64, metadata=limits(16, 256, "inputs that share a step: a power of two"))
    rounding: Rounding = field(
        default=Rounding.NEAREST,
        metadata=limits(
            None,
            None,
            "gptq, scale-estimation (NNCF's): fitted to recorded inputs, where held-out ones agree",
        ),
    )
    sequential: bool = field(
        default=False,
        metadata=limits(None, None, "fit gptq to inputs that the linears before, quantized, have changed"),
    )
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights to leave alone, * matches any text")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)
        if self.sequential and self.rounding is not Rounding.GPTQ:
            raise PassError(
                f"{self.name}.sequential",
                f"is true, but rounding is {self.rounding}",
                "write rounding=gptq, or leave sequential out",
            )

    @property
    def needs_calibration(self) -> bool:
        """Whatever is fitted does."""
        return self.rounding is not Rounding.NEAREST

    @property
    def needs_rows(self) -> bool:
        """NNCF's scale estimation looks at rows."""
        return self.rounding is Rounding.SCALE_ESTIMATION

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with [K, N] constants, split (if at all) for the same group."""
        require_canonical_linears(self.name, model)
        for node in model.graph:
            planned = node.metadata_props.get(SPLIT_GROUP)
            if planned is not None and int(planned) != self.group:
                raise PassError(
                    f"{self.name}.group",
                    f"is {self.group}, but split-low-rank planned its branches for groups of {planned}",
                    "give both passes the same group",
                )

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Put codes, steps and a DequantizeLinear before every linear that can take them."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        linears = list(int4_linears(model.graph, self.group, self.skip))
        taken = [linear for linear, refusal in linears if refusal is None]
        walked = self._walked(model, taken, context) if self.sequential and taken else {}
        is_fitted = self.needs_calibration and not self.sequential and taken
        moments = moments_of(self.name, model, taken, context) if is_fitted else {}
        for linear, refusal in linears:
            if refusal is not None:
                refusals.append(refusal)
                continue
            if linear.name in walked:
                codes = partial(_arrays_of, walked[linear.name])
                replace_by_codes(model.graph, linear, codes, ir.DataType.INT4, self.group)
            else:
                rows = rows_of(self.name, linear, context).fit if self.needs_rows else None
                self._quantize(model.graph, linear, moments.get(linear.name), rows, context.ledger)
            K, N = linear.shape
            changes.append(Change(linear.name, f"float32[{K},{N}] to int4 in groups of {self.group}"))
        return PassResult(model, tuple(changes), (*refusals, *other_weights(model.graph)))

    def _walked(
        self, model: ir.Model, linears: Sequence[Linear], context: PassContext
    ) -> dict[str, Int4Weight]:
        """All of ``linears``, each quantized on what those before it leave of its input."""
        samples = read_samples(self.name, context.calibration, model)
        found: dict[str, Int4Weight] = {}

        def quantize(linear: Linear, stored: Floats, drift: Drift) -> Floats:
            weight = finite_floats(stored, linear.name, self.name)
            tensor = linear.weight.const_value
            before = None if tensor is None else tensor.meta.get(ORIGINAL)
            whole = weight + branch_product(linear)
            ways = drifted_ways(weight, whole, self.group, drift.fit)
            errors = [drift.held_out.output_error(whole, weight - way.floats()) for way in ways.values()]
            size = output_norm(whole, drift.held_out.exact())
            best = self._best(linear.name, list(ways), errors, size, context.ledger)
            quantized = found[linear.name] = list(ways.values())[best]
            original = weight if before is None else read_floats(before)
            self._record(linear.name, quantized.error(weight), _norm(original), context.ledger)
            return quantized.floats()

        walk(model, linears, samples, quantize)
        return found

    def _quantize(
        self,
        graph: ir.Graph,
        linear: Linear,
        moments: Moments | None,
        rows: Floats | None,
        ledger: LossLedger,
    ) -> None:
        source = linear.weight.const_value
        if source is None:
            raise PassError(self.name, f"'{linear.name}' has no value")
        replace_by_codes(
            graph,
            linear,
            lambda: self._compute(linear.name, source, moments, rows, ledger),
            ir.DataType.INT4,
            self.group,
            work_floats=0.5 if moments is None else 6,
        )

    def _compute(
        self,
        name: str,
        source: ir.TensorProtocol,
        moments: Moments | None,
        rows: Floats | None,
        ledger: LossLedger,
    ) -> Mapping[str, Array]:
        stored = source.meta.get(ORIGINAL)
        if moments is None:
            weight = own_floats(source, name, self.name)
            quantized, error = int4_weight_and_error(weight, self.group)
            original_norm = source.meta.get(ORIGINAL_NORM)
            if original_norm is not None:
                norm = original_norm()
            else:
                norm = _norm(weight if stored is None else read(stored))
            self._record(name, error, norm, ledger)
            return _arrays_of(quantized)
        weight = np.ascontiguousarray(own_floats(source, name, self.name))
        original = weight if stored is None else read_floats(stored)
        nearest = int4_weight(weight, self.group)
        fitted = (
            gptq_weight(weight, nearest.steps, row_factor(moments.fit))
            if rows is None
            else scale_estimated_weight(weight, self.group, rows)
        )
        ways = (nearest, fitted)
        errors = [output_norm(way.floats() - weight, moments.held_out) for way in ways]
        names = (str(Rounding.NEAREST), str(self.rounding))
        size = output_norm(original, moments.held_out)
        best = ways[self._best(name, names, errors, size, ledger)]
        self._record(name, best.error(weight), _norm(original), ledger)
        return _arrays_of(best)

    def _best(
        self, name: str, ways: Sequence[str], errors: Sequence[float], size: float, ledger: LossLedger
    ) -> int:
        """Which of ``ways`` has the smallest of ``errors`` on held-out inputs; the first of equal ones.

        ``size`` is that of the layer's output, which the errors are compared with.
        """
        best = int(np.argmin(errors))
        ledger.try_out(
            *(
                Trial(name, self.name, way, errors[i] / size if size > 0 else 0.0, i == best)
                for i, way in enumerate(ways)
            )
        )
        return best

    def _record(self, name: str, error: float, norm: float, ledger: LossLedger) -> None:
        ledger.record(LayerLoss(name, self.name, error / norm if norm > 0 else 0.0))


def _norm(weight: Array) -> float:
    return float(np.linalg.norm(weight))


def _arrays_of(quantized: Int4Weight) -> Mapping[str, Array]:
    return {"codes": quantized.codes, "steps": quantized.steps}
