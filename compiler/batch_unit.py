"""Batch unit: what calibration keeps of a batch that it drew, as arrays for latentc.compiler.finished_units.

final_latents, pictures                                  of its prompts
rows.calls, rows.sha256                                  what tells its rows, when rows are captured
<prompt>.<step>.<half>.input.<name>, ….output.<name>     a record of the denoiser
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latentc.compiler.row_capture import BatchRows
from latentc.compiler.sampling_loop import Place, Record

if TYPE_CHECKING:
    import numpy.typing as npt

    from latentc.compiler.finished_units import Unit
    from latentc.compiler.sampling_loop import Arrays


@dataclass(frozen=True)
class BatchUnit:
    """B prompts, drawn.

    Args:
        final_latents: [B, C, h, w].
        pictures: [B, H, W, 3].
        denoiser: records at those of the places that are in this batch.
        rows: what tells its rows; None when none are captured.
    """

    final_latents: npt.NDArray[np.float32]
    pictures: npt.NDArray[np.uint8]
    denoiser: Mapping[Place, Record]
    rows: BatchRows | None


def arrays_from_unit(unit: BatchUnit) -> Unit:
    """All of ``unit`` as arrays with names."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "final_latents": unit.final_latents,
        "pictures": unit.pictures,
    }
    if unit.rows is not None:
        arrays |= {"rows.calls": unit.rows.calls, "rows.sha256": unit.rows.sha256}
    for place, record in unit.denoiser.items():
        for kind, tensors in (("input", record.inputs), ("output", record.outputs)):
            for name, array in tensors.items():
                arrays[f"{place.prompt}.{place.step}.{place.half}.{kind}.{name}"] = array
    return arrays


def unit_from_arrays(arrays: Unit) -> BatchUnit:
    """What ``arrays_from_unit`` was given."""
    rows = None
    if "rows.calls" in arrays:
        rows = BatchRows(arrays["rows.calls"].astype(np.int64), arrays["rows.sha256"].astype(np.uint8))
    denoiser: dict[Place, Record] = {}
    for key, array in arrays.items():
        if not key[0].isdecimal():
            continue
        prompt, step, half, kind, name = key.split(".", 4)
        record = denoiser.setdefault(Place(int(prompt), int(step), int(half)), Record({}, {}))
        tensors: Arrays = record.inputs if kind == "input" else record.outputs
        tensors[name] = (
            array.astype(np.int64, copy=False)
            if array.dtype == np.int64
            else array.astype(np.float32, copy=False)
        )
    return BatchUnit(
        arrays["final_latents"].astype(np.float32, copy=False),
        arrays["pictures"].astype(np.uint8, copy=False),
        denoiser,
        rows,
    )
