"""The gates that every pass goes through: twice is once, the numbers hold, ONNX's checker accepts."""

from pathlib import Path

import onnx_ir as ir
from tests.passes.graphs import inputs_of, relative_error, run_model

from latentc.passes.base import Pass, PassContext
from latentc.passes.graph_text import graph_text

SIZES = {"B": 2, "T": 3, "h": 6, "w": 6}


def largest_error(before: ir.Model, after: ir.Model, folder: Path, seed: int) -> float:
    """The largest relative error of any output; writing both models also checks them."""
    feeds = inputs_of(before, SIZES, seed)
    wanted = run_model(before, folder / "before", feeds)
    seen = run_model(after, folder / "after", feeds)
    return max(relative_error(one, other) for one, other in zip(seen, wanted, strict=True))


def assert_twice_is_once(step: Pass, model: ir.Model, context: PassContext) -> None:
    once = step(model, context).model
    twice = step.apply(once.clone(), context)
    assert twice.changes == ()
    assert graph_text(twice.model) == graph_text(once)
