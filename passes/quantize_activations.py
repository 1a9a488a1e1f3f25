"""Quantize-activations: round what 4-bit linears multiply to few bits, each token and group as it comes.

    before   y = MatMul(x, DequantizeLinear(w.codes, …))          x: float32[…, K]
    after    g = Reshape(x, [-1, K / group, group])
             step = Max(ReduceMax(Abs(g)) / 7, tiny)              / 127 for 8 bits
             x.rounded = Reshape(Round(g / step) · step, Shape(x))
             y = MatMul(x.rounded, DequantizeLinear(w.codes, …))

The steps are dynamic, one a token and group, and symmetric from -7 to 7, as SVDQuant's kernels have them
(arXiv 2411.05007, nunchaku). With ``symmetric=false`` codes run from 0 at a group's least value, low, to 15
at its largest: x.rounded = Round((g - low) / step) · step + low. Integer kernels then multiply unsigned by
signed codes, and add low times the sum of the group's weights, a product 1 / group as large. It costs no
bytes, and what a GELU gives, hardly ever below zero, takes twice as many codes.

Before an INT8 weight activations are INT8, whatever ``bits`` says: hardware multiplies equal types. No
runtime of ours executes products of INT4 by INT4: plain operators compute the same values in float32. So
this is a simulation, and a target that would have to execute it refuses it. A low-rank branch still
multiplies the unrounded x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.passes.base import Change, LayerLoss, Pass, PassContext, PassResult, Refusal
from latentc.passes.calibration import inner_values, read_samples
from latentc.passes.dequantized import codes_behind
from latentc.passes.options import limits, require_4_or_8_bits, require_power_of_two
from latentc.passes.relative_error import relative_error
from latentc.passes.weights import (
    BRANCH_OF,
    SMALLEST_STEP,
    Floats,
    initializer,
    matches,
    name_of,
    shape_of,
)

SIMULATED = "latentc.simulated"
"""Node metadata on what stands for an operation that no runtime executes so; its value says which."""

_MEASURED_SAMPLES = 4
_BITS = {ir.DataType.INT4: 4, ir.DataType.INT8: 8}
"""Of codes; activations are rounded to no fewer bits than the weight that they meet."""


@dataclass(frozen=True)
class _Rounded:
    """A value that quantized linears multiply: which MatMuls, the first one's weight, to how many bits."""

    value: ir.Value
    nodes: tuple[ir.Node, ...]
    weight: str
    K: int
    bits: int


@dataclass(frozen=True)
class QuantizeActivations(Pass):
    """Simulate dynamic INT4 or INT8 activations of the linears that quantize-int4 took."""

    name: ClassVar[str] = "quantize-activations"
    version: ClassVar[int] = 2
    preserves: ClassVar[bool] = False

    bits: int = field(default=4, metadata=limits(4, 8, "4 or 8"))
    group: int = field(default=64, metadata=limits(16, 256, "inputs that share a step: a power of two"))
    symmetric: bool = field(
        default=True,
        metadata=limits(None, None, "false: codes span each group from its least to its largest"),
    )
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights whose inputs stay, * matches any text")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)
        require_4_or_8_bits(self.name, self.bits)

    @property
    def needs_calibration(self) -> bool:
        """Recorded inputs say what the rounding costs in each layer."""
        return True

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Round each value that quantized linears read, once for all of them."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        found: list[_Rounded] = []
        for rounded, refusal in _read_by_quantized(model.graph, self.bits, self.group, self.skip):
            if refusal is None:
                found.append(rounded)
            else:
                refusals.append(refusal)
        if found:
            samples = read_samples(self.name, context.calibration, model)[:_MEASURED_SAMPLES]
            names = list(dict.fromkeys(name_of(rounded.value) for rounded in found))
            seen = list(inner_values(model, names, samples))
            for rounded in found:
                context.ledger.record(LayerLoss(rounded.weight, self.name, self._error(seen, rounded)))
                changes.append(
                    Change(
                        name_of(rounded.value), f"to int{rounded.bits} in groups of {self.group}, simulated"
                    )
                )
                self._round(model.graph, rounded)
        return PassResult(model, tuple(changes), tuple(refusals))

    def _error(self, seen: list[dict[str, Floats]], rounded: _Rounded) -> float:
        """‖rounded - x‖ / ‖x‖ of the value."""
        values = [values[name_of(rounded.value)] for values in seen]
        rows = np.concatenate([value.reshape(-1, value.shape[-1]) for value in values])
        return relative_error(rounded_rows(rows, rounded.bits, self.group, symmetric=self.symmetric), rows)

    def _round(self, graph: ir.Graph, rounded: _Rounded) -> None:
        value = rounded.value
        stem = f"{name_of(value)}.int{rounded.bits}" if rounded.bits != self.bits else name_of(value)
        grouped_shape = _vector(graph, f"{stem}.grouped_shape", [-1, rounded.K // self.group, self.group])
        axes = _vector(graph, f"{stem}.group_axis", [-1])
        largest = _number(graph, f"{stem}.largest_code", np.float32(_largest(rounded.bits, self.symmetric)))
        tiny = _number(graph, f"{stem}.smallest_step", SMALLEST_STEP)
        nodes: list[ir.Node] = []

        def add(op_type: str, inputs: list[ir.Value], ending: str, **attributes: int) -> ir.Value:
            node = ir.node(op_type, inputs, attributes=attributes)
            node.name = node.outputs[0].name = f"{stem}.{ending}"
            node.outputs[0].dtype = ir.DataType.INT64 if op_type == "Shape" else ir.DataType.FLOAT
            nodes.append(node)
            return node.outputs[0]

        shape = add("Shape", [value], "shape")
        grouped = add("Reshape", [value, grouped_shape], "grouped")
        if self.symmetric:
            span = add("ReduceMax", [add("Abs", [grouped], "size"), axes], "peak", keepdims=1)
            above = grouped
        else:
            low = add("ReduceMin", [grouped, axes], "low", keepdims=1)
            span = add("Sub", [add("ReduceMax", [grouped, axes], "high", keepdims=1), low], "span")
            above = add("Sub", [grouped, low], "above")
        step = add("Max", [add("Div", [span, largest], "raw_step"), tiny], "step")
        codes = add("Round", [add("Div", [above, step], "scaled")], "codes")
        restored = add("Mul", [codes, step], "restored")
        if not self.symmetric:
            restored = add("Add", [restored, low], "restored_above")
        result = add("Reshape", [restored, shape], "rounded")
        result.shape = value.shape
        nodes[-1].metadata_props[SIMULATED] = f"INT{rounded.bits} activations"
        graph.insert_before(rounded.nodes[0], nodes)
        for node in rounded.nodes:
            node.replace_input_with(0, result)


def rounded_rows(rows: Floats, bits: int, group: int, *, symmetric: bool = True) -> Floats:
    """What the nodes make of ``rows`` [R, K]; ``bits`` are 4 or 8."""
    grouped = rows.reshape(len(rows), -1, group)
    largest = np.float32(_largest(bits, symmetric))
    if symmetric:
        low = np.float32(0)
        span = np.abs(grouped).max(axis=2, keepdims=True)
    else:
        low = grouped.min(axis=2, keepdims=True)
        span = grouped.max(axis=2, keepdims=True) - low
    steps = np.maximum(span / largest, SMALLEST_STEP)
    restored = np.rint((grouped - low) / steps) * steps + low
    return np.asarray(restored.reshape(rows.shape), dtype=np.float32)


def _largest(bits: int, symmetric: bool) -> int:
    """The largest code; the smallest is its negative, or 0."""
    levels = 1 << bits
    return levels // 2 - 1 if symmetric else levels - 1


def _read_by_quantized(
    graph: ir.Graph, bits: int, group: int, skip: tuple[str, ...]
) -> Iterator[tuple[_Rounded, Refusal | None]]:
    """Every value that MatMuls with dequantized integer weights multiply, with the reason to leave it."""
    readers: dict[tuple[ir.Value, int], list[tuple[ir.Node, str, int]]] = {}
    for node in graph:
        if node.op_type != "MatMul" or node.domain or node.inputs[0] is None or node.inputs[1] is None:
            continue
        codes = codes_behind(node.inputs[1])
        if codes is None or BRANCH_OF in node.metadata_props:
            continue
        if codes.dtype in _BITS and len(codes.shape) == 2:
            reader = (node, name_of(node.inputs[1]), shape_of(codes)[0])
            readers.setdefault((node.inputs[0], max(bits, _BITS[codes.dtype])), []).append(reader)
    for (value, wanted_bits), all_readers in readers.items():
        wanted = [reader for reader in all_readers if not matches(reader[1], skip)]
        for _, weight, K in all_readers:
            if matches(weight, skip):
                yield _Rounded(value, (), weight, K, wanted_bits), Refusal(weight, "matches skip")
        if not wanted:
            continue
        nodes = tuple(node for node, _, _ in wanted)
        _, weight, K = wanted[0]
        rounded = _Rounded(value, nodes, weight, K, wanted_bits)
        producer = value.producer()
        is_static = producer is not None and producer.op_type == "DequantizeLinear"
        if producer is not None and (is_static or SIMULATED in producer.metadata_props):
            yield rounded, Refusal(weight, "its input is rounded already")
        elif K % group:
            yield rounded, Refusal(weight, f"its {K} inputs are no multiple of the group, {group}")
        else:
            yield rounded, None


def _vector(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    return initializer(graph, name, ir.tensor(np.array(numbers, np.int64), name=name))


def _number(graph: ir.Graph, name: str, number: np.float32) -> ir.Value:
    return initializer(graph, name, ir.tensor(np.asarray(number), name=name))
