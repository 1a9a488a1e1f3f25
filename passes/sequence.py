"""Sequence: run passes one after another and report each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from latentc.passes.base import Change, Pass, PassContext, Refusal


@dataclass(frozen=True)
class PassReport:
    """What one pass of a sequence did.

    Args:
        text: the pass with its options, as latentc.passes.pass_text reads it.
        version: of the pass.
        changes: every place that it changed.
        refusals: every candidate that it left alone, with the reason.
    """

    text: str
    version: int
    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...]


Observer = Callable[[ir.Model, Pass, ir.Model], None]
"""Called after each pass with the model before, the pass and the model after."""


def run_passes(
    model: ir.Model, passes: Iterable[Pass], context: PassContext, observer: Observer | None = None
) -> tuple[ir.Model, tuple[PassReport, ...]]:
    """Apply ``passes`` in order to copies of ``model``.

    Returns:
        The last model, with lazy weights, and one report a pass.

    Raises:
        PassError: a pass does not fit the graph that the passes before it made.
        ModelError: a file that a pass reads is not what it should be.
    """
    reports: list[PassReport] = []
    for step in passes:
        result = step(model, context)
        if observer is not None:
            observer(model, step, result.model)
        model = result.model
        if not step.preserves:
            context.moments.clear()
        reports.append(PassReport(str(step), step.version, result.changes, result.refusals))
    return model, tuple(reports)
