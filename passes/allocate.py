"""Allocate: give every linear its bits and the rank of its branch, so that a budget loses least.

    before   y = MatMul(x, w)
    after    y = MatMul(x, w)        marked int4, int4+16 (a branch of rank 16), int4@8 (8 directions of its
                                     input kept apart), int8 or float

It changes no values: split-subspace, split-low-rank, quantize-int8-weights and quantize-int4, which follow,
do as they are told. What a way to store a linear costs is its error on held-out rows, weights and activations
rounded, times what of such an error reaches the final latents (measured on the original,
latentc.compiler.sensitivity). The budget is of stored bytes, or of the time that a device would take, by its
roofline (latentc.passes.latency). A plan that was found once can be given as ``plan``: nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError, nearest
from latentc.passes.allotment import ALLOTTED, Allotment, Precision, allot, allotment_from_text
from latentc.passes.base import Change, FrontPoint, Pass, PassContext, PassResult, Refusal
from latentc.passes.calibration import read_samples
from latentc.passes.cost import Budget, Cost, byte_cost, time_cost
from latentc.passes.front import Mix, Way, best_within, front
from latentc.passes.int4_layers import int4_linears, require_canonical_linears
from latentc.passes.latency import Latency, latency_of
from latentc.passes.layer_gains import read_gains
from latentc.passes.layer_rows import Rows, rows_of
from latentc.passes.low_rank import BranchType
from latentc.passes.options import Json, limits, require_power_of_two
from latentc.passes.rounding import Rounding
from latentc.passes.shared_inputs import SharedInput, shared_inputs
from latentc.passes.stored_loss import StoredLoss
from latentc.passes.weights import (
    SPLIT_RANK,
    Linear,
    finite_floats,
    matches,
    read,
)

_INT4 = Precision.INT4
_SMALLEST_RANK = 4
_SMALLEST_SUBSPACE = 4
_BYTE_RATIOS = (0.25, 1.0)
"""Of INT4 codes and of floats, over fp16: no budget of bytes lies outside."""
_LARGEST_RATIO = 2.0


@dataclass(frozen=True)
class Allocate(Pass):
    """Choose bits and rank of every linear under one budget, by what the final latents lose."""

    name: ClassVar[str] = "allocate"
    version: ClassVar[int] = 3
    preserves: ClassVar[bool] = True

    max_ratio: float = field(
        default=0.30,
        metadata=limits(
            0.01,
            _LARGEST_RATIO,
            "the budget: what the linears, and what smooth and rotate put before them, take over floats",
        ),
    )
    budget: Budget = field(
        default=Budget.BYTES,
        metadata=limits(
            None, None, "of what: stored bytes, over fp16, or a device's modelled time, over its floats"
        ),
    )
    device: str = field(default="", metadata=limits(None, None, "with latency: the target whose time it is"))
    precisions: tuple[str, ...] = field(
        default=("int4", "int8"), metadata=limits(None, None, "what a linear may get: int4, int8, float")
    )
    largest_rank: int = field(default=64, metadata=limits(0, 4096, "of a branch beside INT4; 0: no branches"))
    largest_subspace: int = field(
        default=32,
        metadata=limits(0, 1024, "directions of an input kept apart, where activations are INT4; 0: none"),
    )
    branch: BranchType = field(
        default=BranchType.INT8, metadata=limits(None, None, "how split-low-rank will store branches")
    )
    group: int = field(default=64, metadata=limits(16, 256, "of the quantization to come: a power of two"))
    rounding: Rounding = field(
        default=Rounding.GPTQ, metadata=limits(None, None, "of the quantize-int4 to come")
    )
    activations: int = field(
        default=8, metadata=limits(4, 16, "bits of what INT4 linears multiply: 4, 8 (onnxruntime), 16 (fp16)")
    )
    symmetric: bool = field(
        default=True,
        metadata=limits(None, None, "whether the activations to come are: of quantize-activations"),
    )
    unrounded: tuple[str, ...] = field(
        default=(),
        metadata=limits(
            None, None, "names of weights whose inputs stay floats all the same: skip of the rounding"
        ),
    )
    plan: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "WEIGHT=ALLOTMENT each, as found before: nothing is measured")
    )
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights to leave alone, * matches any text")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)
        if self.activations not in (4, 8, 16):
            raise PassError(
                f"{self.name}.activations", f"is {self.activations}, wanted 4, 8 or 16", "write 8"
            )
        offered = [str(precision) for precision in Precision]
        for text in self.precisions:
            if text not in offered:
                raise PassError(f"{self.name}.precisions", f"'{text}' is none", nearest(text, offered))
        if not self.precisions:
            raise PassError(f"{self.name}.precisions", "is empty", 'write precisions=["int4", "int8"]')
        self._check_budget()
        self.planned()

    @property
    def needs_calibration(self) -> bool:
        """Unless a plan is given."""
        return not self.plan

    @property
    def needs_rows(self) -> bool:
        """Unless a plan is given."""
        return not self.plan

    @property
    def needs_gains(self) -> bool:
        """Unless a plan is given."""
        return not self.plan

    @property
    def largest_ratio(self) -> float:
        """The largest budget that makes sense."""
        return _BYTE_RATIOS[1] if self.budget is Budget.BYTES else _LARGEST_RATIO

    @property
    def whole(self) -> str:
        """What the budget is a share of, in words."""
        return "fp16" if self.budget is Budget.BYTES else f"float's time, modelled on {self.device},"

    def identity(self) -> dict[str, Json]:
        """With a budget of time also what is known of the device: other figures, another choice."""
        known = super().identity()
        latency = self._latency()
        if latency is not None and not self.plan:
            known["roofline"] = repr(latency)
        return known

    def planned(self) -> dict[str, Allotment]:
        """The given plan by weight name; raises PassError when one of its texts is none."""
        found: dict[str, Allotment] = {}
        for text in self.plan:
            name, _, allotment = text.rpartition("=")
            if not name or name in found:
                raise PassError(
                    f"{self.name}.plan", f"'{text}' is no WEIGHT=ALLOTMENT, or its second", "write w=int4+16"
                )
            found[name] = allotment_from_text(allotment, f"{self.name}.plan: '{name}'")
        return found

    def _check_budget(self) -> None:
        low, high = _BYTE_RATIOS
        if self._latency() is not None:
            if self.activations == 4:
                raise PassError(
                    f"{self.name}.activations",
                    f"is 4, and {self.device} executes no INT4 × INT4 that could be modelled",
                    "write activations=8 for onnxruntime, activations=16 for TensorRT, or budget=bytes",
                )
        elif self.device:
            raise PassError(
                f"{self.name}.device", "is given, and the budget is of bytes", "write budget=latency"
            )
        elif not low <= self.max_ratio <= high:
            raise PassError(
                f"{self.name}.max_ratio",
                f"is {self.max_ratio:g}, wanted a number from {low} to {high} of the bytes in fp16",
                "write max_ratio=0.3",
            )

    def _latency(self) -> Latency | None:
        """The device's; None for a budget of bytes."""
        return None if self.budget is Budget.BYTES else latency_of(self.device, f"{self.name}.device")

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with float [K, N] constants, none split yet, and a plan names such linears."""
        require_canonical_linears(self.name, model)
        linears = {linear.name: linear for linear, _ in int4_linears(model.graph, self.group, self.skip)}
        for linear in linears.values():
            if SPLIT_RANK in linear.nodes[0].metadata_props:
                raise PassError(
                    self.name, f"'{linear.name}' is split already", "put allocate before split-low-rank"
                )
        for name, allotment in self.planned().items():
            if name not in linears:
                raise PassError(f"{self.name}.plan", f"'{name}' is no linear", nearest(name, list(linears)))
            smallest = min(linears[name].shape)
            if allotment.rank > smallest:
                raise PassError(
                    f"{self.name}.plan",
                    f"rank {allotment.rank} is larger than the smallest side of '{name}' ({smallest})",
                    f"write {name}=int4+{smallest} at most",
                )

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Mark every linear that can be INT4 with what it gets."""
        refusals: list[Refusal] = []
        wanted: list[SharedInput] = []
        for shared, refusal in shared_inputs(model.graph, self.group, self.skip, ALLOTTED):
            if refusal is None:
                wanted.append(shared)
            else:
                refusals.append(refusal)
        if not wanted:
            return PassResult(model, (), tuple(refusals))
        chosen = self.planned() if self.plan else self._chosen(wanted, model, context)
        changes = []
        for linear in (linear for shared in wanted for linear in shared.linears):
            if linear.name not in chosen:
                refusals.append(Refusal(linear.name, "is not in the plan"))
                continue
            allot(linear, chosen[linear.name])
            changes.append(Change(linear.name, str(chosen[linear.name])))
        return PassResult(model, tuple(changes), tuple(refusals))

    def _chosen(
        self, inputs: list[SharedInput], model: ir.Model, context: PassContext
    ) -> dict[str, Allotment]:
        linears = [linear for shared in inputs for linear in shared.linears]
        record = _Record(
            {linear.name: rows_of(self.name, linear, context) for linear in linears},
            read_gains(self.name, context.gains),
        )
        cost = self._cost(linears, model, context)
        ways = {shared.names: list(self._ways_of_input(shared, record, cost)) for shared in inputs}
        mixes = list(front(ways))
        mix = best_within(ways, cost.budget(self.max_ratio))
        if mix is None:
            raise self._too_little(cost, mixes[0].cost)
        context.ledger.offer(
            *(_point(one, cost, taken=False) for one in mixes), _point(mix, cost, taken=True)
        )
        return _allotments(mix)

    def _cost(self, linears: list[Linear], model: ir.Model, context: PassContext) -> Cost:
        """What the budget is of, for ``linears`` of ``model``."""
        latency = self._latency()
        if latency is None:
            return byte_cost(model, linears, self.group, self.branch)
        sample = read_samples(self.name, context.calibration, model)[0]
        return time_cost(model, linears, self.group, self.branch, latency, sample)

    def _too_little(self, cost: Cost, least_cost: int) -> PassError:
        """Not even the cheapest of all ways is within the budget."""
        least = cost.ratio(least_cost)
        wanted = float(np.ceil(least * 1000) / 1000)
        fix = f"write max_ratio={wanted:g} or more"
        if wanted > _LARGEST_RATIO:
            fix = 'offer floats too, precisions=["int4", "int8", "float"], or leave smooth and rotate away'
        return PassError(f"{self.name}.max_ratio", f"is {self.max_ratio:g}, but {cost.least(least)}", fix)

    def _ways_of_input(
        self, shared: SharedInput, record: _Record, cost: Cost
    ) -> Iterator[Way[Mapping[str, Allotment]]]:
        """Allotments of all linears that read one input: with each subspace, the front of its linears."""
        subspaces = (0, *self._subspaces(shared))
        offered = {
            linear.name: list(self._ways(linear, subspaces, record, cost)) for linear in shared.linears
        }
        for subspace in subspaces:
            layers = {
                name: [
                    way for way in ways if way.kind.precision is not _INT4 or way.kind.subspace == subspace
                ]
                for name, ways in offered.items()
            }
            own = cost.of_subspace(shared, subspace) if subspace else 0
            for mix in front(layers):
                kinds = {name: way.kind for name, way in mix.ways.items()}
                yield Way(kinds, mix.cost + own, mix.loss)

    def _ways(
        self, linear: Linear, subspaces: tuple[int, ...], record: _Record, cost: Cost
    ) -> Iterator[Way[Allotment]]:
        """Every allotment of ``linear`` that is worth a look, with its cost and its loss in the end."""
        source = linear.weight.const_value
        array = read(source) if source is not None else np.full(linear.shape, np.nan, np.float32)
        weight = finite_floats(array, linear.name, self.name)
        if linear.name not in record.gains:
            raise PassError(
                f"{self.name}: '{linear.name}'",
                "its sensitivity was not measured",
                f'build the sensitivity step again, or leave the weight alone with skip=["{linear.name}"]',
            )
        rows = record.rows[linear.name]
        moments = rows.fit.T @ rows.fit / np.float32(len(rows.fit))
        bits = self._bits(linear)
        loss = StoredLoss(
            self.group, self.branch, self.rounding, weight, moments, rows.held_out, bits, self.symmetric
        )
        for allotment in self._candidates(linear, subspaces, cost):
            error = loss.of(allotment)
            yield Way(allotment, cost.of_linear(linear, allotment), record.gains[linear.name] * error**2)

    def _bits(self, linear: Linear) -> int:
        return 16 if matches(linear.name, self.unrounded) else self.activations

    def _subspaces(self, shared: SharedInput) -> Iterator[int]:
        """How many directions of an input may be kept apart: only INT4 activations gain enough by it."""
        K = shared.linears[0].shape[0]
        rank = _SMALLEST_SUBSPACE
        if "int4" in self.precisions and any(self._bits(linear) == 4 for linear in shared.linears):
            while rank <= min(self.largest_subspace, K // 4):
                yield rank
                rank *= 2

    def _candidates(self, linear: Linear, subspaces: tuple[int, ...], cost: Cost) -> Iterator[Allotment]:
        if "float" in self.precisions:
            yield Allotment(Precision.FLOAT)
        int8 = Allotment(Precision.INT8)
        if "int8" in self.precisions:
            yield int8
        if "int4" not in self.precisions:
            return
        for subspace in subspaces:  # beside one a branch gains little
            yield Allotment(_INT4, 0, subspace)
        rank = _SMALLEST_RANK
        while rank <= min(self.largest_rank, *linear.shape):
            split = Allotment(_INT4, rank)
            if "int8" in self.precisions and cost.of_linear(linear, split) >= cost.of_linear(linear, int8):
                return
            yield split
            rank *= 2


@dataclass(frozen=True)
class _Record:
    """What was recorded, by weight name."""

    rows: Mapping[str, Rows]
    gains: Mapping[str, float]


def _allotments(mix: Mix[Mapping[str, Allotment]]) -> dict[str, Allotment]:
    return {name: allotment for way in mix.ways.values() for name, allotment in way.kind.items()}


def _point(mix: Mix[Mapping[str, Allotment]], cost: Cost, *, taken: bool) -> FrontPoint:
    precisions = [allotment.precision for allotment in _allotments(mix).values()]
    return FrontPoint(
        ratio=cost.ratio(mix.cost),
        relative_error=float(np.sqrt(mix.loss)),
        int4_layers=precisions.count(Precision.INT4),
        int8_layers=precisions.count(Precision.INT8),
        float_layers=precisions.count(Precision.FLOAT),
        taken=taken,
        device=cost.device,
    )
