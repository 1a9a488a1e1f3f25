"""Layer rows: recorded rows of what a linear multiplies, as the rewrites before it have left them.

Calibration records rows of the original's linears by the name of their weight. A pass that puts nodes before
a linear (a scale, a rotation) marks them with REWRITES_INPUT, and the same is done to the rows here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.weights import Floats, Linear, constant, read_floats

ROWS = "rows"
"""Folder of the recorded rows beside the recorded inputs of a component."""
REWRITES_INPUT = "latentc.rewrites_input"
"""Node metadata on nodes that a pass put before linears; only Mul and MatMul by a constant from the right."""


@dataclass(frozen=True)
class Rows:
    """Rows of what a linear multiplies: [R, K] to fit to, and [R', K] of other prompts to judge by."""

    fit: Floats
    held_out: Floats


def rows_of(pass_name: str, linear: Linear, context: PassContext) -> Rows:
    """The recorded rows of ``linear``, finite.

    Raises:
        PassError: there is no record of this linear, it has another width, or holds NaN or infinity.
    """
    folder = context.calibration
    if folder is None:
        raise PassError(
            pass_name, "needs calibration data, and there is none", "give the recipe a calibration"
        )
    fit, held_out = (_read(folder / ROWS / f"{linear.name}.{kind}.npy") for kind in ("fit", "held_out"))
    rewrites = _rewrites(linear)
    for node in rewrites:
        fit, held_out = _rewritten(node, fit), _rewritten(node, held_out)
    for rows in (fit, held_out):
        if rows.ndim != 2 or rows.shape[1] != linear.shape[0]:
            raise PassError(
                f"{pass_name}: '{linear.name}'",
                f"the recorded rows are {list(rows.shape)}, wanted {linear.shape[0]} columns",
                "build the calibration again",
            )
        if not np.isfinite(rows).all():
            raise PassError(
                f"{pass_name}: '{linear.name}'",
                "the recorded rows hold NaN or infinity",
                "build the calibration again",
            )
    return Rows(fit, held_out)


def _read(path: Path) -> Floats:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except (OSError, ValueError) as error:
        raise PassError(
            str(path),
            f"cannot be read as recorded rows: {error}",
            "set calibration.rows in the recipe, or build the calibration again",
        ) from error


def _rewrites(linear: Linear) -> list[ir.Node]:
    """The marked nodes before ``linear``, the first of them first."""
    nodes: list[ir.Node] = []
    value = linear.nodes[0].inputs[0]
    while value is not None:
        producer = value.producer()
        if producer is None or REWRITES_INPUT not in producer.metadata_props:
            break
        nodes.insert(0, producer)
        value = producer.inputs[0]
    return nodes


def _rewritten(node: ir.Node, rows: Floats) -> Floats:
    tensor = constant(node.inputs[1])
    if tensor is None or node.op_type not in ("Mul", "MatMul"):
        raise PassError("rows", f"'{node.name}' is no Mul or MatMul by a constant", "report this graph")
    values = read_floats(tensor)
    return np.asarray(rows * values if node.op_type == "Mul" else rows @ values, dtype=np.float32)
