"""Quantize-int8-weights: store the weights of chosen linears as 8-bit integers with a step for each output.

    before   y = MatMul(x, w)                    w: float32[K, N]
    after    w = DequantizeLinear(w.codes, Cast(w.steps))      axis 1
             y = MatMul(x, w)                    w.codes: int8[K, N], w.steps: float16[N]

For the few linears that lose too much in 4 bits. Activations stay as they are; onnxruntime fuses the form
into MatMulNBits and rounds them to INT8 when it runs, TensorRT keeps the weight packed.

    static   x.int8 = QuantizeLinear(x, x.step)               one for all that read x
             y = MatMul(DequantizeLinear(x.int8, x.step), w)

With ``static`` what these linears multiply is INT8 as well, in one step that recorded inputs decide: W8A8,
which TensorRT multiplies as integers, and onnxruntime as MatMulIntegerToFloat
(latentc.passes.integer_products).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.allotment import Precision, allotment_of
from latentc.passes.base import Change, LayerLoss, LossLedger, Pass, PassContext, PassResult, Refusal
from latentc.passes.calibration import read_samples
from latentc.passes.int4_layers import quantizable_linears, require_canonical_linears
from latentc.passes.int8_weight import int8_weight
from latentc.passes.options import limits
from latentc.passes.quantized_input import quantized_input
from latentc.passes.quantized_linear import replace_by_codes
from latentc.passes.relative_error import relative_error
from latentc.passes.static_steps import static_steps
from latentc.passes.weights import (
    SPLIT_RANK,
    Array,
    Linear,
    finite_floats,
    matches,
    name_of,
    read,
)


@dataclass(frozen=True)
class QuantizeInt8Weights(Pass):
    """Quantize the weights of chosen linears to symmetric INT8, and what they multiply if asked to."""

    name: ClassVar[str] = "quantize-int8-weights"
    version: ClassVar[int] = 2
    preserves: ClassVar[bool] = False

    only: tuple[str, ...] = field(
        default=(),
        metadata=limits(
            None, None, "names of weights, * matches any text; none: those that allocate gave INT8"
        ),
    )
    static: bool = field(
        default=False,
        metadata=limits(None, None, "round what these linears multiply to INT8, in steps that were recorded"),
    )

    @property
    def needs_calibration(self) -> bool:
        """The steps of activations are measured."""
        return self.static

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with [K, N] constants."""
        require_canonical_linears(self.name, model)

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Put codes, steps and a DequantizeLinear before every chosen linear."""
        refusals: list[Refusal] = []
        taken: list[Linear] = []
        for linear, refusal in list(quantizable_linears(model.graph)):
            if not self._chosen(linear):
                continue
            if refusal is not None:
                refusals.append(refusal)
            elif SPLIT_RANK in linear.nodes[0].metadata_props:
                refusals.append(Refusal(linear.name, "has a low-rank branch, which only INT4 needs"))
            else:
                taken.append(linear)
        steps = self._static_steps(model, taken, context) if self.static and taken else {}
        changes: list[Change] = []
        for linear in taken:
            K, N = linear.shape
            found = [steps.get(value) for value in _inputs_of(linear)]
            if self.static and None in found:
                refusals.append(Refusal(linear.name, "multiplies nothing but zeros in what was recorded"))
                continue
            self._quantize(model.graph, linear, context.ledger)
            beside = ""
            for value, step in zip(_inputs_of(linear), found, strict=True):
                if step is not None:
                    rounded = quantized_input(model.graph, value, step)
                    for node in linear.nodes:
                        if node.inputs[0] is value:
                            node.replace_input_with(0, rounded)
                    beside = f", activations in steps of {step:.4g}"
            changes.append(Change(linear.name, f"float32[{K},{N}] to int8, a step for each output{beside}"))
        return PassResult(model, tuple(changes), tuple(refusals))

    def _static_steps(
        self, model: ir.Model, linears: Sequence[Linear], context: PassContext
    ) -> dict[ir.Value, float]:
        samples = read_samples(self.name, context.calibration, model)
        values = dict.fromkeys(value for linear in linears for value in _inputs_of(linear))
        steps = static_steps(self.name, model, [name_of(value) for value in values], samples)
        return {value: steps[name_of(value)] for value in values if name_of(value) in steps}

    def _chosen(self, linear: Linear) -> bool:
        if self.only:
            return matches(linear.name, self.only)
        allotment = allotment_of(linear)
        return allotment is not None and allotment.precision is Precision.INT8

    def _quantize(self, graph: ir.Graph, linear: Linear, ledger: LossLedger) -> None:
        source = linear.weight.const_value
        if source is None:
            raise PassError(self.name, f"'{linear.name}' has no value")

        def compute() -> Mapping[str, Array]:
            weight = finite_floats(read(source), linear.name, self.name)
            held = int8_weight(weight)
            error = relative_error(held.floats(), weight)
            ledger.record(LayerLoss(linear.name, self.name, error))
            return {"codes": held.codes, "steps": held.steps}

        replace_by_codes(graph, linear, compute, ir.DataType.INT8)


def _inputs_of(linear: Linear) -> tuple[ir.Value, ...]:
    """What ``linear`` multiplies: mostly one value."""
    return tuple(dict.fromkeys(node.inputs[0] for node in linear.nodes if node.inputs[0] is not None))
