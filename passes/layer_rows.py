"""Layer rows: recorded rows of what a linear multiplies, as the rewrites before it have left them.

Calibration records rows of the original's linears by the name of their weight. A pass that puts nodes before
a linear (a scale, a rotation) marks them with REWRITES_INPUT, and the same is done to the rows here; what was
folded into other weights before, latentc.passes.channel_transform knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.calibration import require_calibration
from latentc.passes.channel_transform import folded_before
from latentc.passes.weights import REWRITES_INPUT, Floats, Linear, constant, constant_floats, read
from latentc.recipes.choice import Choice

ROWS = "rows"
"""Folder of the recorded rows beside the recorded inputs of a component."""


class RowKind(Choice):
    """Rows to fit to, and rows of other prompts to judge by."""

    FIT = "fit"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class Rows:
    """Rows of what a linear multiplies: [R, K] to fit to, and [R', K] of other prompts to judge by."""

    fit: Floats
    held_out: Floats


def rows_file(folder: Path, weight: str, kind: RowKind) -> Path:
    """Where in ``folder``, called ROWS, rows of the linear with this ``weight`` lie: [R, K] float32."""
    return folder / f"{weight}.{kind}.npy"


def rows_of(pass_name: str, linear: Linear, context: PassContext) -> Rows:
    """The recorded rows of ``linear``, finite.

    Raises:
        PassError: there is no record of this linear, it has another width, holds NaN or infinity, or the
            graph was written since something was folded into what makes the rows.
    """
    folder = require_calibration(pass_name, context.calibration)
    node = linear.nodes[0]
    files = [rows_file(folder / ROWS, linear.name, kind) for kind in RowKind]
    recorded = [_read(file) for file in files]
    for rows in recorded:
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
    for transform in folded_before(node, pass_name):
        recorded = [transform.columns(rows) for rows in recorded]
    return Rows(*(_rewritten(node.inputs[0], rows) for rows in recorded))


def _read(path: Path) -> Floats:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except (OSError, ValueError) as error:
        raise PassError(
            str(path),
            f"cannot be read as recorded rows: {error}",
            "set calibration.rows in the recipe, or build the calibration again",
        ) from error


def _rewritten(value: ir.Value | None, rows: Floats) -> Floats:
    """What the marked nodes before ``value`` make of ``rows`` [R, K]."""
    node = value.producer() if value is not None else None
    if node is None or REWRITES_INPUT not in node.metadata_props:
        return rows
    given = _rewritten(node.inputs[0], rows)
    if node.op_type == "Mul":
        return np.asarray(given * _floats(node.inputs[1]), dtype=np.float32)
    if node.op_type == "Sub":
        return np.asarray(given - _rewritten(node.inputs[1], rows), dtype=np.float32)
    if node.op_type == "MatMul":
        return np.asarray(given @ _floats(node.inputs[1]), dtype=np.float32)
    if node.op_type == "Reshape":
        shape = constant(node.inputs[1])
        # a shape that is no constant is that of the value before all rewrites
        return given.reshape(len(rows), -1) if shape is None else given.reshape(read(shape).tolist())
    raise PassError("rows", f"'{node.name}' is a {node.op_type}, which rewrites no rows", "report this graph")


def _floats(value: ir.Value | None) -> Floats:
    """What ``value`` always is."""
    found = constant_floats(value)
    if found is None:
        raise PassError("rows", "a value is rewritten by something that is no constant", "report this graph")
    return found
