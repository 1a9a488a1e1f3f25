"""Split-low-rank: move the strongest directions of a linear's weight into a small dense branch.

    before   y = MatMul(x, w)                                   w: float32[K, N]
             z = Add(y, bias)
    after    y = MatMul(x, w)                                   w: the rest, float32[K, N]
             z = Add(y, bias) + MatMul(MatMul(x, w.right), w.left)      [K, R] and [R, N]

The function stays the same; what is left for quantize-int4 is smaller, so 4 bits lose less of it.

The branch is stored as int8 (or float16) and the rest is computed from what is stored, so that no target
loses anything of it. Recorded inputs decide which directions count. INT4 with its steps takes 0.266 of the
fp16 bytes in groups of 64, so a rank of 32 fits into a ratio of 0.30 only from K = N = 960 on (int8); in
smaller layers the rank is lowered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.allotment import allotment_of
from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.branch_nodes import add_beside, dequantized
from latentc.passes.int4_layers import int4_linears, require_canonical_linears
from latentc.passes.layer_inputs import moments_of
from latentc.passes.low_rank import BranchType, arrays_of, branch_bytes, largest_rank, low_rank_branch
from latentc.passes.options import limits, require_power_of_two
from latentc.passes.rounding import Rounding
from latentc.passes.weights import (
    ORIGINAL,
    SPLIT_GROUP,
    SPLIT_RANK,
    Array,
    Floats,
    JointTensors,
    Linear,
    finite_floats,
    initializer,
    read,
    replace_initializer,
)

_STORED = {BranchType.FLOAT16: ir.DataType.FLOAT16, BranchType.INT8: ir.DataType.INT8}


@dataclass(frozen=True)
class SplitLowRank(Pass):
    """Split each linear that quantize-int4 will take into a low-rank branch and a rest."""

    name: ClassVar[str] = "split-low-rank"
    version: ClassVar[int] = 4
    preserves: ClassVar[bool] = True

    rank: int = field(default=32, metadata=limits(1, 4096, "largest rank of a branch"))
    max_ratio: float = field(
        default=0.30,
        metadata=limits(0.25, 2.0, "bytes of INT4, steps and branch at most, over fp16; lowers the rank"),
    )
    branch: BranchType = field(
        default=BranchType.INT8, metadata=limits(None, None, "how the branch is stored")
    )
    group: int = field(default=64, metadata=limits(16, 256, "the group of the quantize-int4 to come"))
    refinements: int = field(
        default=12, metadata=limits(0, 1000, "how often at most a branch is fitted again to INT4's error")
    )
    calibrated: bool = field(
        default=True,
        metadata=limits(None, None, "fit branches to what recorded inputs give, not to the weights alone"),
    )
    rounding: Rounding = field(
        default=Rounding.NEAREST,
        metadata=limits(None, None, "the rounding of the quantize-int4 to come; gptq needs calibrated"),
    )
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights to leave alone, * matches any text")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)
        if self.rounding is Rounding.SCALE_ESTIMATION:
            raise PassError(
                f"{self.name}.rounding", "scale-estimation is of quantize-int4 alone", "write gptq or nearest"
            )
        if self.rounding is Rounding.GPTQ and not self.calibrated:
            raise PassError(
                f"{self.name}.rounding", "is gptq, which needs recorded inputs", "write calibrated=true"
            )

    @property
    def needs_calibration(self) -> bool:
        """As the option ``calibrated`` says."""
        return self.calibrated

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with float [K, N] constants, and the rank fits into each of them."""
        require_canonical_linears(self.name, model)
        for linear, refusal in int4_linears(model.graph, self.group, self.skip):
            if refusal is None and self.rank > min(linear.shape):
                raise PassError(
                    f"{self.name}.rank",
                    f"rank {self.rank} is larger than the smallest side of '{linear.name}' "
                    f"({min(linear.shape)})",
                    f"lower rank to at most {min(linear.shape)}, or skip the layer with "
                    f'skip=["{linear.name}"]',
                )

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Give every linear that INT4 will take a branch, unless the bytes do not allow rank 1."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        linears = list(int4_linears(model.graph, self.group, self.skip))
        whole = [
            linear
            for linear, why in linears
            if why is None and SPLIT_RANK not in linear.nodes[0].metadata_props
        ]
        moments = moments_of(self.name, model, whole, context) if self.calibrated and whole else {}
        for linear, refusal in linears:
            K, N = linear.shape
            allotment = allotment_of(linear)
            if allotment is None:
                rank = min(self.rank, largest_rank(K, N, self.group, self.branch, self.max_ratio))
            else:
                rank = allotment.rank
            if refusal is not None:
                refusals.append(refusal)
            elif SPLIT_RANK in linear.nodes[0].metadata_props:
                refusals.append(Refusal(linear.name, "is split already"))
            elif allotment is not None and rank < 1:
                refusals.append(Refusal(linear.name, "was given no branch by allocate"))
            elif rank < 1:
                one = branch_bytes(K, N, 1, self.branch)
                refusals.append(
                    Refusal(
                        linear.name,
                        f"rank 1 takes {one} bytes, more than max_ratio {self.max_ratio} leaves beside INT4",
                    )
                )
            else:
                known = moments.get(linear.name)
                self._split(model.graph, linear, rank, None if known is None else known.fit)
                changes.append(Change(linear.name, f"[{K},{N}] to a rest and rank {rank}"))
        return PassResult(model, tuple(changes), tuple(refusals))

    def _split(self, graph: ir.Graph, linear: Linear, rank: int, moments: Floats | None) -> None:
        K, N = linear.shape
        source = linear.weight.const_value
        if source is None:
            raise PassError(self.name, f"'{linear.name}' has no value")
        stored = _STORED[self.branch]
        specs: dict[str, tuple[ir.DataType, tuple[int, ...]]] = {
            "rest": (ir.DataType.FLOAT, (K, N)),
            "right": (stored, (K, rank)),
            "left": (stored, (rank, N)),
        }
        if self.branch is BranchType.INT8:
            specs |= {"right.steps": (ir.DataType.FLOAT16, (rank,)), "left.step": (ir.DataType.FLOAT16, ())}
        joint = JointTensors(lambda: self._compute(linear.name, source, rank, moments), specs)
        rest = joint.tensor("rest")
        rest.meta[ORIGINAL] = source.meta.get(ORIGINAL, source)
        replace_initializer(graph, linear.weight, rest)
        values = {
            key: initializer(graph, f"{linear.name}.{key}", joint.tensor(key))
            for key in specs
            if key != "rest"
        }
        first = linear.nodes[0]
        right = self._as_float32(graph, first, linear.name, "right", values)
        left = self._as_float32(graph, first, linear.name, "left", values)
        for node in linear.nodes:
            node.metadata_props[SPLIT_RANK] = str(rank)
            node.metadata_props[SPLIT_GROUP] = str(self.group)
            inner = ir.node("MatMul", [node.inputs[0], right])
            outer = ir.node("MatMul", [inner.outputs[0], left])
            add_beside(graph, node, ((inner, "inner"), (outer, "branch")), linear.name)

    def _as_float32(
        self, graph: ir.Graph, before: ir.Node, name: str, side: str, values: Mapping[str, ir.Value]
    ) -> ir.Value:
        """Nodes that turn the stored ``side`` of a branch into float32."""
        if self.branch is BranchType.INT8:
            steps = values["right.steps" if side == "right" else "left.step"]
            return dequantized(graph, before, values[side], steps)
        node = ir.node("Cast", [values[side]], attributes={"to": ir.DataType.FLOAT.value})
        node.name = node.outputs[0].name = f"{name}.{side}.float32"
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, values[side].shape
        graph.insert_before(before, [node])
        return node.outputs[0]

    def _compute(
        self, name: str, source: ir.TensorProtocol, rank: int, moments: Floats | None
    ) -> Mapping[str, Array]:
        weight = finite_floats(read(source), name, self.name)
        branch = low_rank_branch(
            weight, rank, self.branch, self.group, self.refinements, moments, self.rounding
        )
        return dict(arrays_of(branch, weight - branch.product()))
