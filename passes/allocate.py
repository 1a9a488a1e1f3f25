"""Allocate: give every linear its bits and the rank of its branch, so that a budget of bytes loses least.

    before   y = MatMul(x, w)
    after    y = MatMul(x, w)        marked int4, int4+16 (a branch of rank 16), int8 or float

It changes no values: split-low-rank, quantize-int8-weights and quantize-int4, which follow, do as they are
told. What a way to store a linear costs is its error on held-out rows, weights and activations rounded, times
what of such an error reaches the final latents (measured on the original, latentc.compiler.sensitivity).
A plan that was found once can be given as ``plan``, and then nothing is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError, nearest
from latentc.passes.allotment import (
    ALLOTTED,
    Allotment,
    Precision,
    allot,
    allotment_from_text,
)
from latentc.passes.base import Change, FrontPoint, Pass, PassContext, PassResult, Refusal
from latentc.passes.front import Mix, Way, best_within, front
from latentc.passes.int4_layers import int4_linears, require_canonical_linears
from latentc.passes.int8_weight import int8_weight
from latentc.passes.layer_gains import read_gains
from latentc.passes.layer_inputs import moments_of
from latentc.passes.layer_rows import rows_of
from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.options import limits, require_power_of_two
from latentc.passes.quantize_activations import rounded_rows
from latentc.passes.rounded_error import output_error
from latentc.passes.rounding import Rounding, rounded_weight
from latentc.passes.weight_bytes import weigh
from latentc.passes.weights import SPLIT_RANK, Floats, Linear, matches, read_floats

_SMALLEST_RANK = 4
_REFINEMENTS = 2  # more of them improve every rank alike, and cost most of the time


@dataclass(frozen=True)
class Allocate(Pass):
    """Choose bits and rank of every linear under one budget of bytes, by what the final latents lose."""

    name: ClassVar[str] = "allocate"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    max_ratio: float = field(
        default=0.30,
        metadata=limits(
            0.25,
            1.0,
            "the budget: bytes of the linears, and of what smooth and rotate put before them, over fp16",
        ),
    )
    precisions: tuple[str, ...] = field(
        default=("int4", "int8"), metadata=limits(None, None, "what a linear may get: int4, int8, float")
    )
    largest_rank: int = field(default=64, metadata=limits(0, 4096, "of a branch beside INT4; 0: no branches"))
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
        wanted: list[Linear] = []
        for linear, refusal in int4_linears(model.graph, self.group, self.skip):
            if refusal is not None:
                refusals.append(refusal)
            elif ALLOTTED in linear.nodes[0].metadata_props:
                refusals.append(Refusal(linear.name, "has its allotment already"))
            else:
                wanted.append(linear)
        if not wanted:
            return PassResult(model, (), tuple(refusals))
        chosen = self.planned() if self.plan else self._chosen(wanted, model, context)
        changes = []
        for linear in wanted:
            if linear.name not in chosen:
                refusals.append(Refusal(linear.name, "is not in the plan"))
                continue
            allot(linear, chosen[linear.name])
            changes.append(Change(linear.name, str(chosen[linear.name])))
        return PassResult(model, tuple(changes), tuple(refusals))

    def _chosen(self, linears: list[Linear], model: ir.Model, context: PassContext) -> dict[str, Allotment]:
        spent = weigh(model)
        moments = moments_of(self.name, model, linears, context)
        gains = read_gains(self.name, context.gains)
        ways = {
            linear.name: list(
                self._ways(
                    linear, moments[linear.name].fit, rows_of(self.name, linear, context).held_out, gains
                )
            )
            for linear in linears
        }
        fp16_bytes = spent.quantized_fp16_bytes + sum(math.prod(linear.shape) * 2 for linear in linears)
        mixes = list(front(ways))
        mix = best_within(ways, int(self.max_ratio * fp16_bytes) - spent.quantized_bytes)
        if mix is None:
            least = (spent.quantized_bytes + mixes[0].size_bytes) / fp16_bytes
            raise PassError(
                f"{self.name}.max_ratio",
                f"is {self.max_ratio:g}, but the smallest that these layers can be is {least:.4f}",
                f"write max_ratio={np.ceil(least * 1000) / 1000:g} or more",
            )
        context.ledger.offer(
            *(self._point(one, spent.quantized_bytes, fp16_bytes, taken=False) for one in mixes),
            self._point(mix, spent.quantized_bytes, fp16_bytes, taken=True),
        )
        return {name: way.kind for name, way in mix.ways.items()}

    def _ways(
        self, linear: Linear, moments: Floats, rows: Floats, gains: dict[str, float]
    ) -> Iterator[Way[Allotment]]:
        """Every allotment of ``linear`` that is worth a look, with its bytes and its loss in the end."""
        source = linear.weight.const_value
        weight = read_floats(source) if source is not None else np.full(linear.shape, np.nan, np.float32)
        if not np.isfinite(weight).all():
            raise PassError(self.name, f"'{linear.name}' holds NaN or infinity", "check the checkpoint")
        if linear.name not in gains:
            raise PassError(
                f"{self.name}: '{linear.name}'",
                "its sensitivity was not measured",
                f'build the sensitivity step again, or leave the weight alone with skip=["{linear.name}"]',
            )
        K, N = linear.shape
        bits = 16 if matches(linear.name, self.unrounded) else self.activations
        for allotment in self._candidates(K, N):
            error = self._error(weight, allotment, moments, rows, bits)
            size = allotment.weight_bytes(K, N, self.group, self.branch)
            yield Way(allotment, size, gains[linear.name] * error**2)

    def _candidates(self, K: int, N: int) -> Iterator[Allotment]:
        if "float" in self.precisions:
            yield Allotment(Precision.FLOAT)
        int8 = Allotment(Precision.INT8)
        if "int8" in self.precisions:
            yield int8
        if "int4" in self.precisions:
            yield Allotment(Precision.INT4)
            rank = _SMALLEST_RANK
            while rank <= min(self.largest_rank, K, N):
                split = Allotment(Precision.INT4, rank)
                size = split.weight_bytes(K, N, self.group, self.branch)
                if "int8" in self.precisions and size >= int8.weight_bytes(K, N, self.group, self.branch):
                    break
                yield split
                rank *= 2

    def _error(self, weight: Floats, allotment: Allotment, moments: Floats, rows: Floats, bits: int) -> float:
        """Relative error of the linear's output on ``rows`` [R, K], rounded to ``bits`` where that is few."""
        none = np.zeros_like(weight)
        if allotment.precision is Precision.FLOAT:
            return 0.0
        if allotment.precision is Precision.INT8:
            held = int8_weight(weight).floats()
            return output_error(weight, none, held, rows, self._rounded(rows, max(8, bits)))
        product = none
        if allotment.rank:
            product = low_rank_branch(
                weight, allotment.rank, self.branch, self.group, _REFINEMENTS, moments, Rounding.NEAREST
            ).product()
        held = rounded_weight(weight - product, self.group, self.rounding, moments).floats()
        return output_error(weight, product, held, rows, self._rounded(rows, bits))

    def _rounded(self, rows: Floats, bits: int) -> Floats:
        return rows if bits == 16 else rounded_rows(rows, bits, self.group)

    def _point(self, mix: Mix[Allotment], spent_bytes: int, fp16_bytes: int, *, taken: bool) -> FrontPoint:
        precisions = [way.kind.precision for way in mix.ways.values()]
        return FrontPoint(
            ratio=(spent_bytes + mix.size_bytes) / fp16_bytes,
            relative_error=float(np.sqrt(mix.loss)),
            int4_layers=precisions.count(Precision.INT4),
            int8_layers=precisions.count(Precision.INT8),
            float_layers=precisions.count(Precision.FLOAT),
            taken=taken,
        )
