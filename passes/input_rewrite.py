"""Input rewrite: what smooth and rotate share, which change an input, and the weights that multiply it back.

    before   y = MatMul(x, w)                w: float32[K, N]
    after    y = MatMul(f(x), g(w))          the same function

All that such a pass can win is that 4 bits lose less afterwards, and recorded rows say whether they do. It
proposes one way for each input; where held-out rows lose no less by it, the linears stay as they are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir

from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal, Trial
from latentc.passes.int4_layers import require_canonical_linears
from latentc.passes.layer_rows import Rows, rows_of
from latentc.passes.options import limits, require_4_or_8_bits, require_power_of_two
from latentc.passes.rounded_error import RoundingToCome
from latentc.passes.shared_inputs import SharedInput, shared_inputs
from latentc.passes.weights import Floats


@dataclass(frozen=True)
class Proposal:
    """How to rewrite an input and the weights that multiply it.

    Args:
        way: in words, such as ``blocks of 64``.
        error: what the rounded layers lose on held-out rows when rewritten so, relative.
        no_better: what to say when they lose no less by it.
        rewrite: does it.
    """

    way: str
    error: float
    no_better: str
    rewrite: Callable[[ir.Graph, SharedInput], None]


@dataclass(frozen=True)
class InputRewrite(Pass):
    """Base of smooth and rotate.

    Class attributes:
        considered: node metadata on a linear that the pass has considered.
    """

    preserves: ClassVar[bool] = True
    considered: ClassVar[str]

    bits: int = field(default=4, kw_only=True, metadata=limits(4, 8, "of the activations to come: 4 or 8"))
    group: int = field(default=64, kw_only=True, metadata=limits(16, 256, "of the quantization to come"))
    rank: int = field(
        default=32, kw_only=True, metadata=limits(0, 4096, "of the low-rank branch to come; 0 for none")
    )
    symmetric: bool = field(
        default=True, kw_only=True, metadata=limits(None, None, "whether the activations to come are")
    )
    skip: tuple[str, ...] = field(
        default=(),
        kw_only=True,
        metadata=limits(None, None, "names of weights to leave alone, * matches any text"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_power_of_two(self.name, self.group)
        require_4_or_8_bits(self.name, self.bits)

    @property
    def needs_calibration(self) -> bool:
        """Recorded rows decide."""
        return True

    @property
    def needs_rows(self) -> bool:
        """Recorded rows decide."""
        return True

    @property
    def rounding(self) -> RoundingToCome:
        """What the layers are prepared for."""
        return RoundingToCome(self.bits, self.group, self.rank, self.symmetric)

    @abstractmethod
    def propose(self, weight: Floats, rows: Rows) -> Proposal:
        """The best rewrite of an input.

        Args:
            weight: [K, N], of all linears that read the input, side by side.
            rows: of the input; to be fitted to and judged by.
        """

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with float [K, N] constants."""
        require_canonical_linears(self.name, model)

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Rewrite every value that linears read, where held-out rows say that it helps."""
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for shared, refusal in list(shared_inputs(model.graph, self.group, self.skip, self.considered)):
            if refusal is not None:
                refusals.append(refusal)
                continue
            rows = rows_of(self.name, shared.linears[0], context)
            weight = shared.weight(self.name)
            proposal = self.propose(weight, rows)
            before, after = self.rounding.error(weight, rows.held_out), proposal.error
            better = after < before
            shared.mark(self.considered, self.name)
            for linear in shared.linears:
                context.ledger.try_out(Trial(linear.name, self.name, "as it is", before, not better))
                context.ledger.try_out(Trial(linear.name, self.name, proposal.way, after, better))
            if better:
                proposal.rewrite(model.graph, shared)
                changes.append(
                    Change(shared.names, f"{proposal.way}: held-out error {before:.4f} to {after:.4f}")
                )
            else:
                refusals.append(Refusal(shared.names, f"{proposal.no_better} on held-out rows ({after:.4f})"))
        return PassResult(model, tuple(changes), tuple(refusals))
