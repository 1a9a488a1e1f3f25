"""Quantize-int4: store the weights of linears as 4-bit integers with a step for each group of inputs.

    before   y = MatMul(x, w)                    w: float32[K, N]
    after    w = DequantizeLinear(w.codes, Cast(w.steps))      axis 0, blocks of ``group``
             y = MatMul(x, w)                    w.codes: int4[K, N], w.steps: float16[K / group, N]

Codes are the nearest ones, or those of GPTQ where recorded inputs show that these serve better.

This is the form that onnxruntime fuses into MatMulNBits and that TensorRT keeps packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.base import Change, LayerLoss, LossLedger, Pass, PassContext, PassResult, Refusal, Trial
from latentc.passes.gptq import row_factor
from latentc.passes.int4_layers import int4_linears, other_weights, require_canonical_linears
from latentc.passes.int4_weight import Int4Weight, int4_weight
from latentc.passes.layer_inputs import moments_of
from latentc.passes.layer_rows import rows_of
from latentc.passes.moments import Moments, output_norm
from latentc.passes.options import limits, require_power_of_two
from latentc.passes.quantized_linear import replace_by_codes
from latentc.passes.rounding import Rounding, gptq_weight, scale_estimated_weight
from latentc.passes.weights import (
    ORIGINAL,
    SPLIT_GROUP,
    Array,
    Floats,
    Linear,
    finite_floats,
    read,
    read_floats,
)


@dataclass(frozen=True)
class QuantizeInt4(Pass):
    """Quantize the weights of linears to symmetric INT4 through NNCF; activations stay as they are."""

    name: ClassVar[str] = "quantize-int4"
    version: ClassVar[int] = 4
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
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights to leave alone, * matches any text")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)

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
        moments = moments_of(self.name, model, taken, context) if self.needs_calibration and taken else {}
        for linear, refusal in linears:
            if refusal is not None:
                refusals.append(refusal)
                continue
            rows = rows_of(self.name, linear, context).fit if self.needs_rows else None
            self._quantize(model.graph, linear, moments.get(linear.name), rows, context.ledger)
            K, N = linear.shape
            changes.append(Change(linear.name, f"float32[{K},{N}] to int4 in groups of {self.group}"))
        return PassResult(model, tuple(changes), (*refusals, *other_weights(model.graph)))

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
        )

    def _compute(
        self,
        name: str,
        source: ir.TensorProtocol,
        moments: Moments | None,
        rows: Floats | None,
        ledger: LossLedger,
    ) -> Mapping[str, Array]:
        weight = finite_floats(read(source), name, self.name)
        stored = source.meta.get(ORIGINAL)
        original = weight if stored is None else read_floats(stored)
        quantized = int4_weight(weight, self.group)
        if moments is not None:
            fitted = (
                gptq_weight(weight, quantized.steps, row_factor(moments.fit))
                if rows is None
                else scale_estimated_weight(weight, self.group, rows)
            )
            quantized, trials = self._better(name, weight, original, (quantized, fitted), moments)
            ledger.try_out(*trials)
        norm = np.linalg.norm(original)
        error = np.linalg.norm(quantized.floats() - weight)
        ledger.record(LayerLoss(name, self.name, float(error / norm) if norm > 0 else 0.0))
        return {"codes": quantized.codes, "steps": quantized.steps}

    def _better(
        self,
        name: str,
        weight: Floats,
        original: Floats,
        ways: tuple[Int4Weight, Int4Weight],
        moments: Moments,
    ) -> tuple[Int4Weight, list[Trial]]:
        """What gives the smaller output error on held-out inputs: the nearest codes, or the fitted ones."""
        size = output_norm(original, moments.held_out)
        errors = [output_norm(way.floats() - weight, moments.held_out) for way in ways]
        best = int(errors[1] < errors[0])
        trials = [
            Trial(name, self.name, str(rounding), errors[i] / size if size > 0 else 0.0, i == best)
            for i, rounding in enumerate((Rounding.NEAREST, self.rounding))
        ]
        return ways[best], trials
