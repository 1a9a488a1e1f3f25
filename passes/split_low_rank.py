"""Split-low-rank: move the strongest directions of a linear's weight into a small dense branch.

    before   y = MatMul(x, w)                                   w: float32[K, N]
             z = Add(y, bias)
    after    y = MatMul(x, w)                                   w: the rest, float32[K, N]
             z = Add(y, bias) + MatMul(MatMul(x, w.right), w.left)      [K, R] and [R, N]

The function stays the same; what is left for quantize-int4 is smaller, so 4 bits lose less of it.

The branch is stored as int8 (or float16) and the rest is computed from what is stored, so that no target
loses anything of it. Recorded inputs decide which directions count. INT4 with its steps takes 0.266 of the
fp16 bytes in groups of 64, so a rank of 32 fits into a ratio of 0.30 only from K = N = 960 on (int8); in
smaller layers the rank is lowered. With ``shared``, linears that read the same x have one w.right, and what
it gives is computed once: q, k and v as one linear, which is how SVDQuant (arXiv 2411.05007) has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.allotment import allotment_of
from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.branch_nodes import add_beside
from latentc.passes.dequantized import dequantized
from latentc.passes.int4_layers import int4_linears, require_canonical_linears
from latentc.passes.layer_inputs import moments_of
from latentc.passes.low_rank import BranchType, branch_bytes, fit_bytes, largest_rank, low_rank_branch
from latentc.passes.options import limits, require_power_of_two
from latentc.passes.rounding import Rounding
from latentc.passes.weights import (
    ORIGINAL,
    ORIGINAL_NORM,
    SPLIT_GROUP,
    SPLIT_RANK,
    Array,
    Floats,
    JointTensors,
    Linear,
    initializer,
    own_floats,
    replace_initializer,
    shape_of,
)

_STORED = {BranchType.FLOAT16: ir.DataType.FLOAT16, BranchType.INT8: ir.DataType.INT8}


@dataclass(frozen=True)
class SplitLowRank(Pass):
    """Split each linear that quantize-int4 will take into a low-rank branch and a rest."""

    name: ClassVar[str] = "split-low-rank"
    version: ClassVar[int] = 6
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
    shared: bool = field(
        default=False,
        metadata=limits(
            None, None, "linears that read the same input, as q, k and v, share the right factor"
        ),
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
            if refusal is not None:
                refusals.append(refusal)
            elif SPLIT_RANK in linear.nodes[0].metadata_props:
                refusals.append(Refusal(linear.name, "is split already"))
        for group in self._groups(whole):
            rank = self._rank_of(group)
            names = ", ".join(linear.name for linear in group)
            if rank >= 1:
                known = moments.get(group[0].name)
                self._split(model.graph, group, rank, None if known is None else known.fit)
                K, N = _joined_shape(group)
                changes.append(Change(names, f"[{K},{N}] to a rest and rank {rank}"))
            elif allotment_of(group[0]) is not None:
                refusals.append(Refusal(names, "was given no branch by allocate"))
            else:
                one = branch_bytes(*_joined_shape(group), 1, self.branch)
                refusals.append(
                    Refusal(
                        names,
                        f"rank 1 takes {one} bytes, more than max_ratio {self.max_ratio} leaves beside INT4",
                    )
                )
        return PassResult(model, tuple(changes), tuple(refusals))

    def _groups(self, linears: Sequence[Linear]) -> list[tuple[Linear, ...]]:
        """Linears with one ``right`` together: those that read the same value, when branches are shared.

        What allocate has planned, it has planned linear by linear.
        """
        groups: dict[tuple[ir.Value | None, str], list[Linear]] = {}
        for linear in linears:
            alone = not self.shared or len(linear.nodes) > 1 or allotment_of(linear) is not None
            key = (linear.nodes[0].inputs[0], linear.name if alone else "")
            groups.setdefault(key, []).append(linear)
        return [tuple(group) for group in groups.values()]

    def _rank_of(self, group: tuple[Linear, ...]) -> int:
        """As allotted, or as many as the bytes allow; less than 1 for no branch."""
        allotment = allotment_of(group[0])
        if allotment is not None:
            return allotment.rank
        return min(self.rank, largest_rank(*_joined_shape(group), self.group, self.branch, self.max_ratio))

    def _split(self, graph: ir.Graph, group: tuple[Linear, ...], rank: int, moments: Floats | None) -> None:
        stored, with_steps = _STORED[self.branch], self.branch is BranchType.INT8
        K = group[0].shape[0]
        sources: list[tuple[str, ir.TensorProtocol]] = []
        specs: dict[str, tuple[ir.DataType, tuple[int, ...]]] = {"right": (stored, (K, rank))}
        if with_steps:
            specs["right.steps"] = (ir.DataType.FLOAT16, (rank,))
        for linear in group:
            if linear.weight.const_value is None:
                raise PassError(self.name, f"'{linear.name}' has no value")
            sources.append((linear.name, linear.weight.const_value))
            specs[f"{linear.name}.rest"] = (ir.DataType.FLOAT, linear.shape)
            specs[f"{linear.name}.left"] = (stored, (rank, linear.shape[1]))
            if with_steps:
                specs[f"{linear.name}.left.step"] = (ir.DataType.FLOAT16, ())
        norms: dict[str, float] = {}
        joint = JointTensors(
            lambda: self._compute(sources, rank, moments, norms),
            specs,
            [source for _, source in sources],
            self._work_bytes(_joined_shape(group), moments),
        )
        for linear, (name, source) in zip(group, sources, strict=True):
            rest = joint.tensor(f"{name}.rest")
            rest.meta[ORIGINAL] = source.meta.get(ORIGINAL, source)
            if ORIGINAL not in source.meta:
                rest.meta[ORIGINAL_NORM] = partial(norms.__getitem__, name)
            replace_initializer(graph, linear.weight, rest)
        first = group[0]
        right = self._as_float32(graph, first.nodes[0], first.name, "right", joint, "")
        inners: dict[ir.Value | None, ir.Node] = {}
        for linear in group:
            left = self._as_float32(graph, linear.nodes[0], linear.name, "left", joint, f"{linear.name}.")
            for node in linear.nodes:
                node.metadata_props[SPLIT_RANK] = str(rank)
                node.metadata_props[SPLIT_GROUP] = str(self.group)
                value, products = node.inputs[0], []
                if value not in inners:
                    inners[value] = ir.node("MatMul", [value, right])
                    products.append((inners[value], "inner"))
                products.append((ir.node("MatMul", [inners[value].outputs[0], left]), "branch"))
                add_beside(graph, node, products, linear.name)

    def _as_float32(
        self, graph: ir.Graph, before: ir.Node, name: str, side: str, joint: JointTensors, prefix: str
    ) -> ir.Value:
        """Nodes that turn the stored ``side`` of a branch, behind ``prefix`` in ``joint``, into float32."""

        def stored(ending: str) -> ir.Value:
            return initializer(graph, f"{name}.{ending}", joint.tensor(f"{prefix}{ending}"))

        codes = stored(side)
        if self.branch is BranchType.INT8:
            steps = stored("right.steps" if side == "right" else "left.step")
            return dequantized(graph, before, codes, steps, f"{name}.{side}.float32")
        node = ir.node("Cast", [codes], attributes={"to": ir.DataType.FLOAT.value})
        node.name = node.outputs[0].name = f"{name}.{side}.float32"
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, codes.shape
        graph.insert_before(before, [node])
        return node.outputs[0]

    def _compute(
        self,
        sources: Sequence[tuple[str, ir.TensorProtocol]],
        rank: int,
        moments: Floats | None,
        norms: dict[str, float],
    ) -> Mapping[str, Array]:
        """The branch of all weights side by side: ``right``, and of each weight its ``rest`` and ``left``.

        The weights are gone afterwards, but for their ``norms`` by name.
        """
        widths = [shape_of(source)[1] for _, source in sources]
        starts = [sum(widths[:index]) for index in range(len(widths))]
        columns = [slice(start, start + width) for start, width in zip(starts, widths, strict=True)]
        if len(sources) == 1:
            whole = own_floats(sources[0][1], sources[0][0], self.name)
        else:
            whole = np.empty((shape_of(sources[0][1])[0], sum(widths)), np.float32, order="F")
            for (name, source), place in zip(sources, columns, strict=True):
                whole[:, place] = own_floats(source, name, self.name)
        for (name, _), place in zip(sources, columns, strict=True):
            norms[name] = float(np.linalg.norm(whole[:, place]))
        if self._is_iterated(moments):
            whole = np.ascontiguousarray(whole)
        branch = low_rank_branch(
            whole, rank, self.branch, self.group, self.refinements, moments, self.rounding
        )
        branch.take_from(whole)
        found: dict[str, Array] = {"right": branch.right, "right.steps": branch.right_steps}
        for (name, _), place in zip(sources, columns, strict=True):
            found[f"{name}.rest"] = whole[:, place]
            found[f"{name}.left"] = branch.left[:, place]
            found[f"{name}.left.step"] = branch.left_step
        return found

    def _is_iterated(self, moments: Floats | None) -> bool:
        """Whether the weight is rounded again and again while the branch is found."""
        return moments is not None or self.refinements > 0

    def _work_bytes(self, shape: tuple[int, int], moments: Floats | None) -> int:
        """As latentc.passes.weights.Program has it, of a weight of ``shape``."""
        K, N = shape
        return 4 * K * N * (5 if self._is_iterated(moments) else 0) + fit_bytes(K, N, self.rank)


def _joined_shape(group: tuple[Linear, ...]) -> tuple[int, int]:
    """[K, N] of the weights side by side."""
    return group[0].shape[0], sum(linear.shape[1] for linear in group)
