"""Split-subspace: keep the directions in which an input varies most out of what 4 bits round.

    before   y = MatMul(x, w)                                w: float32[K, N]
    after    z = MatMul(x, P)                                P: int8[K, R] dequantized
             x.rest = Sub(x, MatMul(Mul(z, κ), Transpose(P)))
             y = MatMul(x.rest, w) + MatMul(z, w.along)      w: the rest, w.along: int8[R, N] dequantized

The same function. What is left of x is small, and so is what it loses when its activations are rounded to 4
bits (latentc.passes.subspace). Linears that read the same x share z. How many directions each input gets is
what allocate says, or, without it, ``directions`` for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.allotment import allotment_of
from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.branch_nodes import add_beside
from latentc.passes.dequantized import dequantized
from latentc.passes.int4_layers import require_canonical_linears
from latentc.passes.layer_inputs import moments_of
from latentc.passes.options import limits, require_power_of_two
from latentc.passes.shared_inputs import SharedInput, shared_inputs
from latentc.passes.subspace import KEPT_APART, Subspace, leading_subspace, split_along
from latentc.passes.weights import (
    BRANCH_OF,
    ORIGINAL,
    REWRITES_INPUT,
    SPLIT_RANK,
    Array,
    JointTensors,
    Linear,
    finite_floats,
    initializer,
    name_of,
    read,
    replace_initializer,
)

SUBSPACE = "latentc.subspace"
"""Node metadata on a linear that split-subspace has considered."""


@dataclass(frozen=True)
class SplitSubspace(Pass):
    """Split the strongest directions of what INT4 linears read off into a side path."""

    name: ClassVar[str] = "split-subspace"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = True

    directions: int = field(
        default=16, metadata=limits(1, 1024, "R, where allocate has not said how many; at most K / 2")
    )
    group: int = field(default=64, metadata=limits(16, 256, "of the quantize-int4 to come: a power of two"))
    skip: tuple[str, ...] = field(
        default=(), metadata=limits(None, None, "names of weights to leave alone, * matches any text")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)

    @property
    def needs_calibration(self) -> bool:
        """The directions are those of recorded inputs."""
        return True

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with float [K, N] constants, not split yet."""
        require_canonical_linears(self.name, model)
        for node in model.graph:
            if SPLIT_RANK in node.metadata_props and SUBSPACE not in node.metadata_props:
                raise PassError(
                    self.name,
                    f"'{name_of(node.outputs[0])}' has a low-rank branch already",
                    "put split-subspace before split-low-rank",
                )

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Split every value that INT4 linears read and that gets directions of its own."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        wanted: list[tuple[SharedInput, int]] = []
        for shared, refusal in list(shared_inputs(model.graph, self.group, self.skip, SUBSPACE)):
            if refusal is not None:
                refusals.append(refusal)
                continue
            shared.mark(SUBSPACE, self.name)
            for rank, linears in self.by_rank(shared).items():
                if rank == 0:
                    refusals += [Refusal(one.name, "was given no directions by allocate") for one in linears]
                else:
                    wanted.append((SharedInput(shared.value, linears), rank))
        first = [shared.linears[0] for shared, _ in wanted]
        moments = moments_of(self.name, model, first, context) if first else {}
        for shared, rank in wanted:
            subspace = leading_subspace(moments[shared.linears[0].name].fit, rank)
            split_off(model.graph, shared, subspace)
            changes.append(Change(shared.names, f"{rank} directions of '{name_of(shared.value)}' kept apart"))
        return PassResult(model, tuple(changes), tuple(refusals))

    def by_rank(self, shared: SharedInput) -> Mapping[int, tuple[Linear, ...]]:
        """Linears of ``shared`` by how many directions of it they get."""
        found: dict[int, list[Linear]] = {}
        for linear in shared.linears:
            allotment = allotment_of(linear)
            rank = min(self.directions, linear.shape[0] // 2) if allotment is None else allotment.subspace
            found.setdefault(rank, []).append(linear)
        return {rank: tuple(linears) for rank, linears in found.items()}


def split_off(graph: ir.Graph, shared: SharedInput, subspace: Subspace) -> None:
    """Let the linears of ``shared`` read what is left of it beside ``subspace``."""
    stem = f"{name_of(shared.value)}.{len(subspace.steps)}"
    K, R = subspace.codes.shape
    codes = initializer(graph, f"{stem}.directions", ir.tensor(subspace.codes))
    steps = initializer(graph, f"{stem}.directions.steps", ir.tensor(subspace.steps))
    P = dequantized(graph, shared.nodes[0], codes, steps, f"{stem}.directions.float32")
    kept = initializer(graph, f"{stem}.kept_apart", ir.tensor(np.asarray(KEPT_APART)))
    inner = ir.node("MatMul", [shared.value, P])
    scaled = ir.node("Mul", [inner.outputs[0], kept])
    turned = ir.node("Transpose", [P], attributes={"perm": [1, 0]})
    back = ir.node("MatMul", [scaled.outputs[0], turned.outputs[0]])
    rest = ir.node("Sub", [shared.value, back.outputs[0]])
    nodes = {"along": inner, "along.kept": scaled, "directions.back": turned, "apart": back, "rest": rest}
    for ending, node in nodes.items():
        node.name = node.outputs[0].name = f"{stem}.{ending}"
        node.outputs[0].dtype = ir.DataType.FLOAT
        if node is not turned:
            node.metadata_props[REWRITES_INPUT] = SplitSubspace.name
    inner.metadata_props[BRANCH_OF] = shared.names
    turned.outputs[0].shape = ir.Shape((R, K))
    rest.outputs[0].shape = shared.value.shape
    graph.insert_before(shared.nodes[0], list(nodes.values()))
    for linear in shared.linears:
        _split_weight(graph, linear, subspace, inner.outputs[0], rest.outputs[0])


def _split_weight(
    graph: ir.Graph, linear: Linear, subspace: Subspace, along: ir.Value, rest_of_input: ir.Value
) -> None:
    source = linear.weight.const_value
    if source is None:
        raise PassError(SplitSubspace.name, f"'{linear.name}' has no value", "report this graph")
    name, (K, N), R = linear.name, linear.shape, len(subspace.steps)

    def compute() -> Mapping[str, Array]:
        split = split_along(finite_floats(read(source), name, SplitSubspace.name), subspace)
        return {"rest": split.rest, "along": split.codes, "along.step": np.asarray(split.step)}

    joint = JointTensors(
        compute,
        {
            "rest": (ir.DataType.FLOAT, (K, N)),
            "along": (ir.DataType.INT8, (R, N)),
            "along.step": (ir.DataType.FLOAT16, ()),
        },
        (source,),
        3 * 4 * K * N,
    )
    rest = joint.tensor("rest")
    rest.meta[ORIGINAL] = source.meta.get(ORIGINAL, source)
    replace_initializer(graph, linear.weight, rest)
    codes, step = (initializer(graph, f"{name}.{key}", joint.tensor(key)) for key in ("along", "along.step"))
    L = dequantized(graph, linear.nodes[0], codes, step, f"{name}.along.float32")
    for node in linear.nodes:
        node.replace_input_with(0, rest_of_input)
        add_beside(graph, node, ((ir.node("MatMul", [along, L]), "along"),), name)
