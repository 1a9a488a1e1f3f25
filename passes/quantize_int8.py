"""Quantize-int8: convolutions multiply 8-bit integers, with steps that calibration has measured.

    before   y = Conv(x, w, b)                                w: float32[N, C, …]
    after    x.int8 = QuantizeLinear(x, x.step)               one for all Convs that read x
             x.quantized = DequantizeLinear(x.int8, x.step)
             y = Conv(x.quantized, DequantizeLinear(w.codes, w.steps), b)     w.codes: int8, w.steps: [N]

All symmetric, zero points left out, as TensorRT wants it. NNCF finds the steps of activations; a step of
weights is the largest weight of an output channel / 127. What a Conv gives is not rounded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.base import Change, LayerLoss, LossLedger, Pass, PassContext, PassResult, Refusal
from latentc.passes.calibration import read_samples, write_typed
from latentc.passes.dequantized import codes_behind, dequantized
from latentc.passes.nncf_bridge import ActivationSteps, calibrated_convolutions
from latentc.passes.options import limits
from latentc.passes.quantized_input import quantized_input
from latentc.passes.relative_error import relative_error
from latentc.passes.weights import (
    SMALLEST_STEP,
    SPLIT_RANK,
    Array,
    Convolution,
    JointTensors,
    constant,
    find_convolutions,
    finite_floats,
    initializer,
    matches,
    name_of,
    read_floats,
    replace_initializer,
)


@dataclass(frozen=True)
class QuantizeInt8(Pass):
    """Quantize convolutions, weights and activations, to symmetric INT8 through NNCF."""

    name: ClassVar[str] = "quantize-int8"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = False

    correct_biases: bool = field(
        default=False, metadata=limits(None, None, "let NNCF correct the biases for what rounding shifts")
    )
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of kernels to leave alone, * matches any text")
    )

    @property
    def needs_calibration(self) -> bool:
        """Always: steps of activations are measured."""
        return True

    def requires(self, model: ir.Model) -> None:
        """The graph is float32: nothing has quantized, split or cast it yet."""
        for node in model.graph:
            codes = codes_behind(node.outputs[0])
            is_int4 = codes is not None and codes.dtype is ir.DataType.INT4
            if is_int4 or SPLIT_RANK in node.metadata_props:
                raise PassError(
                    self.name,
                    f"'{name_of(node.outputs[0])}' is split or quantized to INT4 already",
                    "put quantize-int8 before split-low-rank and quantize-int4",
                )
        for convolution in find_convolutions(model.graph):
            tensor = convolution.weight.const_value
            if tensor is not None and tensor.dtype is not ir.DataType.FLOAT:
                raise PassError(
                    self.name,
                    f"'{convolution.name}' is stored as {tensor.dtype.numpy()}, wanted float32",
                    "put quantize-int8 before cast",
                )

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Calibrate once, then give every convolution its QuantizeLinear and DequantizeLinear nodes."""
        graph = model.graph
        refusals: list[Refusal] = []
        wanted: list[Convolution] = []
        for convolution in find_convolutions(graph):
            if matches(convolution.name, self.skip):
                refusals.append(Refusal(convolution.name, "matches skip"))
            elif convolution.node.inputs[0] is not None:
                wanted.append(convolution)
        if not wanted:
            return PassResult(model, (), (*refusals, Refusal("graph", "has no float convolution")))
        samples = read_samples(self.name, context.calibration, model)
        found = self._calibrated(model, samples)
        changes: list[Change] = []
        for convolution in wanted:
            source = convolution.node.inputs[0]
            step = found.steps.get(name_of(source)) if source is not None else None
            if source is None or step is None or not step > 0:
                refusals.append(Refusal(convolution.name, "calibration saw nothing but zeros"))
                continue
            convolution.node.replace_input_with(0, quantized_input(graph, source, step))
            quantize_kernel(graph, convolution, context.ledger)
            _correct_bias(graph, convolution.node, found.biases)
            changes.append(Change(convolution.name, f"int8, activations in steps of {step:.4g}"))
        return PassResult(model, tuple(changes), tuple(refusals))

    def _calibrated(self, model: ir.Model, samples: Sequence[Mapping[str, Array]]) -> ActivationSteps:
        with tempfile.TemporaryDirectory(prefix="latentc-") as folder:
            write_typed(model, Path(folder))
            return calibrated_convolutions(Path(folder), samples, self.correct_biases)


def quantize_kernel(graph: ir.Graph, convolution: Convolution, ledger: LossLedger) -> None:
    """Store the kernel of ``convolution`` as codes with a step an output; nothing is read yet."""
    name, shape, source = convolution.name, convolution.shape, convolution.weight.const_value
    codes_name = f"{name}.codes"
    if codes_name in graph.initializers:  # two Convs share the kernel
        reader = graph.initializers[codes_name].uses()
        convolution.node.replace_input_with(1, next(iter(reader)).node.outputs[0])
        return
    if source is None:
        raise PassError(name, "has no value")
    joint = JointTensors(
        lambda: _rounded(name, read_floats(source), ledger),
        {"codes": (ir.DataType.INT8, shape), "steps": (ir.DataType.FLOAT16, shape[:1])},
        (source,),
        4 * source.nbytes,
    )
    codes = initializer(graph, codes_name, joint.tensor("codes"))
    steps = initializer(graph, f"{name}.steps", joint.tensor("steps"))
    del graph.initializers[name]
    kernel = dequantized(graph, convolution.node, codes, steps, name, axis=0)
    convolution.weight.replace_all_uses_with(kernel)


def _rounded(name: str, kernel: Array, ledger: LossLedger) -> Mapping[str, Array]:
    weight = finite_floats(kernel, name, "quantize-int8")
    axes = tuple(range(1, weight.ndim))
    largest = np.abs(weight).max(axis=axes)
    steps = np.maximum(largest / np.float32(127), SMALLEST_STEP).astype(np.float16)
    wide = steps.astype(np.float32).reshape(-1, *(1 for _ in axes))
    codes = np.clip(np.rint(weight / wide), -127, 127)
    ledger.record(LayerLoss(name, "quantize-int8", relative_error(codes * wide, weight)))
    return {"codes": codes.astype(np.int8), "steps": steps}


def _correct_bias(graph: ir.Graph, node: ir.Node, biases: Mapping[str, Array]) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None or constant(bias) is None or name_of(bias) not in biases or len(bias.uses()) != 1:
        return
    replace_initializer(graph, bias, ir.tensor(biases[name_of(bias)].reshape(-1)))
