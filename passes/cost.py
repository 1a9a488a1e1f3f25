"""Cost: what a budget is of, bytes that linears are stored in or time that a device takes for them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.allotment import Allotment, Precision
from latentc.passes.latency import Latency
from latentc.passes.low_rank import BranchType
from latentc.passes.recorded_shapes import recorded_shapes
from latentc.passes.shared_inputs import SharedInput
from latentc.passes.subspace import subspace_bytes
from latentc.passes.weight_bytes import weigh
from latentc.passes.weights import REWRITES_INPUT, Array, Linear, name_of
from latentc.recipes.choice import Choice


class Budget(Choice):
    """What is given for all linears together."""

    BYTES = "bytes"
    LATENCY = "latency"


@dataclass(frozen=True)
class Cost(ABC):
    """What ways to store linears cost, in whole numbers of one unit.

    Args:
        group: of the INT4 quantization to come.
        branch: how branches will be stored.
        spent: what is before any linear: of what other passes put into the graph.
        whole: what ratios are over, the cost of the linears when all stay floats.
    """

    group: int
    branch: BranchType
    spent: int
    whole: int

    @property
    @abstractmethod
    def device(self) -> str:
        """The target whose time it is; empty for bytes."""

    @abstractmethod
    def of_linear(self, linear: Linear, allotment: Allotment) -> int:
        """Of ``linear``, stored so."""

    @abstractmethod
    def of_subspace(self, shared: SharedInput, directions: int) -> int:
        """Of splitting ``directions`` off an input, once for all linears that read it."""

    @abstractmethod
    def least(self, ratio: float) -> str:
        """A sentence's end: ``ratio`` is the least that can be had."""

    def ratio(self, cost: int) -> float:
        """``cost`` of the linears, with what is spent already, over the whole."""
        return (self.spent + cost) / self.whole

    def budget(self, max_ratio: float) -> int:
        """What ``max_ratio`` leaves to the linears; may be negative."""
        return int(max_ratio * self.whole) - self.spent


@dataclass(frozen=True)
class ByteCost(Cost):
    """Stored bytes, over those in fp16."""

    @property
    def device(self) -> str:
        """None."""
        return ""

    def of_linear(self, linear: Linear, allotment: Allotment) -> int:
        """Its weight's bytes."""
        return allotment.weight_bytes(*linear.shape, self.group, self.branch)

    def of_subspace(self, shared: SharedInput, directions: int) -> int:
        """The subspace's bytes."""
        return subspace_bytes(shared.linears[0].shape[0], directions)

    def least(self, ratio: float) -> str:
        """In the words of bytes."""
        return f"the smallest that these layers can be is {ratio:.4f}"


@dataclass(frozen=True)
class TimeCost(Cost):
    """Modelled nanoseconds of one call of the component, over those with float weights.

    Args:
        latency: of the device.
        rows: how many rows each linear multiplies in a call, by weight name.
    """

    latency: Latency
    rows: Mapping[str, int]

    @property
    def device(self) -> str:
        """Whose time it is."""
        return self.latency.device

    def of_linear(self, linear: Linear, allotment: Allotment) -> int:
        """The time of all its nodes."""
        return _linear_ns(self.latency, linear, self.rows[linear.name], allotment, self.group, self.branch)

    def of_subspace(self, shared: SharedInput, directions: int) -> int:
        """The time of its nodes."""
        first = shared.linears[0]
        return _ns(self.latency.subspace(first.shape[0], self.rows[first.name], directions))

    def least(self, ratio: float) -> str:
        """In the words of time."""
        return (
            f"the fastest that these layers can be is {ratio:.4f} of float's time, modelled on {self.device}"
        )


def byte_cost(model: ir.Model, linears: Sequence[Linear], group: int, branch: BranchType) -> ByteCost:
    """Bytes; what linears that are quantized already and rewritten inputs take is spent."""
    sizes = weigh(model)
    fp16_bytes = sizes.quantized_fp16_bytes + sum(math.prod(linear.shape) * 2 for linear in linears)
    return ByteCost(group, branch, sizes.quantized_bytes, fp16_bytes)


def time_cost(
    model: ir.Model,
    linears: Sequence[Linear],
    group: int,
    branch: BranchType,
    latency: Latency,
    sample: Mapping[str, Array],
) -> TimeCost:
    """Time on a device; what nodes take that smooth and rotate put before linears is spent.

    Args:
        model: holds ``linears``.
        linears: at least one, each of one input.
        group: of the INT4 quantization to come.
        branch: how branches will be stored.
        latency: of the device.
        sample: a recorded input of ``model``, which says how many rows there are.

    Raises:
        PassError: with that input a linear has no rows.
    """
    read = {
        linear.name: name_of(value) for linear in linears if (value := linear.nodes[0].inputs[0]) is not None
    }
    before = [node for node in model.graph if REWRITES_INPUT in node.metadata_props]
    shapes = recorded_shapes(model, [*read.values(), *(name_of(node.outputs[0]) for node in before)], sample)
    rows = {name: math.prod(shapes[value][:-1]) for name, value in read.items()}
    empty = [name for name, count in rows.items() if count == 0]
    if empty:
        raise PassError(
            f"'{empty[0]}'", "has no rows to multiply in the first record", "build the calibration again"
        )
    spent = sum(_rewriting_ns(latency, node, shapes[name_of(node.outputs[0])]) for node in before)
    floats = Allotment(Precision.FLOAT)
    whole = sum(_linear_ns(latency, linear, rows[linear.name], floats, group, branch) for linear in linears)
    return TimeCost(group, branch, spent, whole, latency, rows)


def _linear_ns(
    latency: Latency, linear: Linear, rows: int, allotment: Allotment, group: int, branch: BranchType
) -> int:
    return len(linear.nodes) * _ns(latency.linear(*linear.shape, rows, allotment, group, branch))


def _rewriting_ns(latency: Latency, node: ir.Node, shape: tuple[int, ...]) -> int:
    """Of a node that REWRITES_INPUT marks, whose result has ``shape``; a Reshape moves nothing."""
    numbers = math.prod(shape)
    if node.op_type == "MatMul":
        return _ns(latency.blocks(numbers, shape[-1]))
    return _ns(latency.elementwise(2 * numbers)) if node.op_type == "Mul" else 0


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)
