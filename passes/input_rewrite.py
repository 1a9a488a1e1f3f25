"""Input rewrite: what smooth and rotate share, which change an input, and the weights that multiply it back.

    before   y = MatMul(x, w)                w: float32[K, N]
    after    y = MatMul(x · T, T⁻¹ · w)      the same function

All that such a pass can win is that 4 bits lose less afterwards, and recorded rows say whether they do. It
proposes one way for each input; where held-out rows lose no less by it, the linears stay as they are.

Where what makes x can give x · T by itself (latentc.passes.foldable), nothing is put before the linears.
Readers of one attention must then share T, and a rotation must stay within a head: such a way is taken if it
loses next to no more than nodes would.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal, Trial
from latentc.passes.channel_transform import ChannelTransform
from latentc.passes.foldable import Foldable, fold, foldables
from latentc.passes.int4_layers import require_canonical_linears
from latentc.passes.layer_rows import Rows, rows_of
from latentc.passes.makers import Makers
from latentc.passes.options import limits, require_4_or_8_bits, require_power_of_two
from latentc.passes.rounded_error import RoundingToCome
from latentc.passes.shared_inputs import SharedInput, shared_inputs
from latentc.passes.weights import Floats, name_of

_AS_GOOD = 1.05
"""A folded way may lose this much more than nodes would. One scale for both streams of FLUX's attention loses
0 to 5 % more than one each, on the recorded rows of shapes-flux; the nodes cost bytes and time."""


@dataclass(frozen=True)
class Reading:
    """What one input is multiplied by, and what was recorded of it.

    Args:
        weight: [K, N], of all linears that read the input, side by side.
        rows: of the input; to be fitted to and judged by.
    """

    weight: Floats
    rows: Rows


@dataclass(frozen=True)
class Proposal:
    """How to rewrite inputs and the weights that multiply them.

    Args:
        way: in words, such as ``blocks of 64``.
        errors: what the rounded layers of each reading lose on held-out rows when rewritten so, relative.
        no_better: what to say when they lose no less by it.
        transform: T.
    """

    way: str
    errors: tuple[float, ...]
    no_better: str
    transform: ChannelTransform


@dataclass(frozen=True)
class InputRewrite(Pass):
    """Base of smooth and rotate.

    Class attributes:
        considered: node metadata on a linear that the pass has considered.
        mixes_channels: its transforms do more than scale channels.
    """

    preserves: ClassVar[bool] = True
    considered: ClassVar[str]
    mixes_channels: ClassVar[bool]

    bits: int = field(default=4, kw_only=True, metadata=limits(4, 8, "of the activations to come: 4 or 8"))
    group: int = field(default=64, kw_only=True, metadata=limits(16, 256, "of the quantization to come"))
    rank: int = field(
        default=32, kw_only=True, metadata=limits(0, 4096, "of the low-rank branch to come; 0 for none")
    )
    symmetric: bool = field(
        default=True, kw_only=True, metadata=limits(None, None, "whether the activations to come are")
    )
    fold: bool = field(
        default=True,
        kw_only=True,
        metadata=limits(None, None, "into what makes an input, where it can be; false: nodes for all"),
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
    def propose(self, readings: Sequence[Reading], mixes: int) -> Proposal:
        """The best rewrite of all of ``readings`` by one T.

        Args:
            readings: of inputs with the same number of channels, K.
            mixes: blocks of channels that T mixes must divide this; K itself or fewer.
        """

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with float [K, N] constants."""
        require_canonical_linears(self.name, model)

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Rewrite every value that linears read, where held-out rows say that it helps."""
        inputs: list[SharedInput] = []
        refusals: list[Refusal] = []
        for shared, refusal in shared_inputs(model.graph, self.group, self.skip, self.considered):
            if refusal is None:
                inputs.append(shared)
            else:
                refusals.append(refusal)
        changes: list[Change] = []
        for found in self._found(model.graph, inputs):
            for outcome in self._considered(model.graph, found, context):
                if isinstance(outcome, Change):
                    changes.append(outcome)
                else:
                    refusals.append(outcome)
        return PassResult(model, tuple(changes), tuple(refusals))

    def _found(self, graph: ir.Graph, inputs: Sequence[SharedInput]) -> Sequence[Foldable]:
        if not self.fold:
            return [Foldable((shared,), "fold is false") for shared in inputs]
        return list(foldables(graph, inputs, self.skip))

    def _considered(
        self, graph: ir.Graph, found: Foldable, context: PassContext
    ) -> Iterator[Change | Refusal]:
        """Rewrite the inputs of ``found`` together, or each in its own way, or leave them alone."""
        readings = []
        for shared in found.inputs:
            rows = rows_of(self.name, shared.linears[0], context)
            readings.append(Reading(shared.weight(self.name), rows))
            shared.mark(self.considered, self.name)
        before = [self.rounding.error(one.weight, one.rows.held_out) for one in readings]
        makers = self._makers(found)
        folded = None if isinstance(makers, str) else self.propose(readings, makers.mixes)
        if folded is not None and len(readings) == 1 and not self.mixes_channels:
            apart = [folded]  # nodes would do the same
        else:
            apart = [self.propose((one,), len(one.weight)) for one in readings]
        online = [min(error, one.errors[0]) for error, one in zip(before, apart, strict=True)]
        is_folded = (
            folded is not None
            and _mean(folded.errors) < _mean(before)
            and _mean(folded.errors) <= _AS_GOOD * _mean(online)
        )
        for number, shared in enumerate(found.inputs):
            ways = _tried(before[number], apart[number], folded, number, is_folded=is_folded)
            for linear in shared.linears:
                context.ledger.try_out(*(Trial(linear.name, self.name, *way) for way in ways))
        if is_folded and folded is not None and isinstance(makers, Makers):
            told = f"{_told(folded.way, _mean(before), _mean(folded.errors))}, folded into {makers}"
            fold(graph, found.inputs, makers, folded.transform, self.name)
            for shared in found.inputs:
                context.moments.pop(name_of(shared.value), None)  # of x, and it is x · T now
            yield Change(found.names, told)
            return
        why = makers if folded is None else f"folded it loses {_mean(folded.errors):.4f}"
        for shared, error, one in zip(found.inputs, before, apart, strict=True):
            if one.errors[0] < error:
                nodes = one.transform.nodes(graph, shared.value, shared.linears[0].shape[0])
                shared.rewrite(graph, nodes, one.transform.rows, self.name)
                yield Change(shared.names, f"{_told(one.way, error, one.errors[0])}, online: {why}")
            else:
                after = f"({one.errors[0]:.4f})"
                yield Refusal(shared.names, f"{one.no_better} on held-out rows {after}")

    def _makers(self, found: Foldable) -> Makers | str:
        """What may be folded into, or why nothing can."""
        makers = found.makers
        if isinstance(makers, Makers) and self.mixes_channels and makers.mixes == 1:
            return f"{makers} can only be scaled"
        return makers


def _tried(
    before: float, apart: Proposal, folded: Proposal | None, number: int, *, is_folded: bool
) -> list[tuple[str, float, bool]]:
    """What was tried for reading ``number``: the way, what it loses, whether it was taken."""
    error = apart.errors[0]
    ways = [("as it is", before, not is_folded and error >= before)]
    if folded is not None:
        ways.append((f"{folded.way}, folded", folded.errors[number], is_folded))
    if apart is not folded:
        ways.append((apart.way, error, not is_folded and error < before))
    return ways


def _told(way: str, before: float, after: float) -> str:
    return f"{way}: held-out error {before:.4f} to {after:.4f}"


def _mean(errors: Sequence[float]) -> float:
    """Root of the mean square: readings that are rewritten together count the same, whatever their size."""
    return float(np.sqrt(np.mean(np.square(errors))))
