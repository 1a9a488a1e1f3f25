"""Pass: one rewrite of a graph, as a frozen dataclass whose fields are its options.

A pass prints as ``split-low-rank{rank=32}`` and latentc.passes.pass_text reads that back. Calling it runs
``requires → clone → apply → ensures``; weights stay lazy, so a pass costs graph nodes, not gigabytes.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, final

import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.moments import Moments
from latentc.passes.options import Json, check_settings, json_of_setting, limits, options_of, text_of_options


@dataclass(frozen=True)
class Change:
    """One place that a pass changed: the node or tensor, and what was done."""

    where: str
    what: str


@dataclass(frozen=True)
class Refusal:
    """One candidate that a pass left alone, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class LayerLoss:
    """What a lossy pass cost in one layer, measured when its weight was written.

    Args:
        layer: name of the weight.
        pass_name: which pass.
        relative_error: ‖rewritten - original‖ / ‖original‖ of the weight (or activation), 0 and up.
    """

    layer: str
    pass_name: str
    relative_error: float


@dataclass(frozen=True)
class Trial:
    """One way to rewrite a layer that a pass tried, judged on inputs that it was not fitted to.

    Args:
        layer: name of the weight.
        pass_name: which pass.
        way: what was tried, such as ``gptq``.
        relative_error: ‖rewritten - original‖ / ‖original‖ of the layer's output.
        taken: whether the layer was rewritten so.
    """

    layer: str
    pass_name: str
    way: str
    relative_error: float
    taken: bool


@dataclass(frozen=True)
class FrontPoint:
    """One way to spend a budget on a component, the best for its cost as far as a pass could foretell.

    Args:
        ratio: bytes of the linears over what they take in fp16; with ``device`` their modelled time there,
            over that of floats.
        relative_error: foretold ‖latents - original's‖ / ‖original's‖ at the end of the trajectory.
        int4_layers: how many linears get INT4.
        int8_layers: how many get INT8.
        float_layers: how many stay as they are.
        taken: whether the component was built so.
        device: the target whose time ``ratio`` is of; empty for bytes.
    """

    ratio: float
    relative_error: float
    int4_layers: int
    int8_layers: int
    float_layers: int
    taken: bool
    device: str = ""


@dataclass
class LossLedger:
    """Collects what passes lose, tried and could have chosen; one ledger a written model.

    Losses come while lazy weights are pulled.
    """

    losses: list[LayerLoss] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    front: list[FrontPoint] = field(default_factory=list)
    _of_thread: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def record(self, loss: LayerLoss) -> None:
        """Add ``loss``; a weight that is pulled twice is recorded once."""
        losses = self._current().losses
        if loss not in losses:
            losses.append(loss)

    def try_out(self, *trials: Trial) -> None:
        """Add what was tried, each trial once."""
        known = self._current().trials
        known.extend(trial for trial in trials if trial not in known)

    def add(self, other: LossLedger) -> None:
        """Take over the losses and trials of ``other``."""
        for loss in other.losses:
            self.record(loss)
        self.try_out(*other.trials)

    @contextmanager
    def apart(self) -> Iterator[LossLedger]:
        """A ledger of its own for what this thread records within."""
        own = self._of_thread.ledger = LossLedger()
        try:
            yield own
        finally:
            del self._of_thread.ledger

    def _current(self) -> LossLedger:
        current: LossLedger = getattr(self._of_thread, "ledger", self)
        return current

    def offer(self, *points: FrontPoint) -> None:
        """Add what could be chosen, and what was."""
        self.front.extend(points)


@dataclass(frozen=True)
class PassContext:
    """What a pass may look at besides the graph.

    Args:
        ledger: where lossy passes put their losses.
        calibration: folder of recorded component inputs, ``NNNN.npz`` each with one array an input
            name; None when the recipe has none.
        gains: folder of a sensitivity step (latentc.passes.layer_gains); None when there was none.
        moments: what latentc.passes.layer_inputs found out, by the name of a value, as long as it holds.
    """

    ledger: LossLedger = field(default_factory=LossLedger)
    calibration: Path | None = None
    gains: Path | None = None
    moments: dict[str, Moments] = field(default_factory=dict)


@dataclass(frozen=True)
class PassResult:
    """A rewritten model with what was changed and what was left alone."""

    model: ir.Model
    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Pass(ABC):
    """Base of all passes.

    Class attributes:
        name: the command-line name, equal to the file's name with dashes.
        version: raised whenever the same options give other bytes; part of the digest.
        preserves: the pass keeps the function (proven on random inputs in its tests); False for lossy ones.

    Args:
        optional: changing nothing is fine; otherwise a pass that matches nothing is an error.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    preserves: ClassVar[bool]

    optional: bool = field(
        default=False, kw_only=True, metadata=limits(None, None, "changing nothing is fine")
    )

    def __post_init__(self) -> None:
        check_settings(self.name, self)

    @property
    def needs_calibration(self) -> bool:
        """Whether PassContext.calibration must be given."""
        return False

    @property
    def needs_rows(self) -> bool:
        """Whether calibration must record rows of what linears multiply (latentc.passes.layer_rows)."""
        return False

    @property
    def needs_gains(self) -> bool:
        """Whether the sensitivity of every layer must be measured (latentc.passes.layer_gains)."""
        return False

    def __str__(self) -> str:
        return text_of_options(self.name, self)

    def identity(self) -> dict[str, Json]:
        """What of this pass changes the bytes of its result: name, version, every option.

        Options that are paths count by the content of what they name.

        Raises:
            ModelError: a file that an option names cannot be read.
        """
        return {
            "name": self.name,
            "version": self.version,
            "options": {
                option.name: json_of_setting(getattr(self, option.name)) for option in options_of(type(self))
            },
        }

    def requires(self, model: ir.Model) -> None:
        """Raise PassError when ``model`` is not what this pass works on."""

    @abstractmethod
    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Rewrite ``model`` in place and say what changed. A second run changes nothing."""

    def ensures(self, model: ir.Model) -> None:
        """Raise PassError when the rewritten ``model`` breaks this pass's promise."""

    def files(self) -> tuple[Path, ...]:
        """Files and folders that the options name; their content enters the digest."""
        values = (getattr(self, option.name) for option in options_of(type(self)))
        return tuple(value for value in values if isinstance(value, Path))

    @final
    def __call__(self, model: ir.Model, context: PassContext) -> PassResult:
        """Run the pass on a copy of ``model``; weights are shared with it, not copied.

        Raises:
            PassError: a requirement or promise is broken, or nothing matched and ``optional`` is False.
        """
        self.requires(model)
        result = self.apply(model.clone(), context)
        if not result.changes and not self.optional:
            reasons = "; ".join(f"{r.where}: {r.why}" for r in result.refusals[:3])
            raise PassError(
                self.name,
                f"changed nothing{f' ({reasons})' if reasons else ''}",
                "remove the pass from the recipe, or give it optional: true",
            )
        self.ensures(result.model)
        return result
