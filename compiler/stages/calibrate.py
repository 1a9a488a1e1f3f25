"""Calibrate: record what every component takes while the original draws the calibration prompts.

out/<component>/NNNN.npz   one array an input name, B is 1; float32, ids int64
out/<denoiser>/rows/       what its linears multiply: latentc.compiler.row_capture
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latentc.compiler.finished_units import FinishedUnits
from latentc.compiler.sampling_options import drawing_identity
from latentc.compiler.stage import Progress, ResumableStage
from latentc.passes.layer_rows import ROWS

if TYPE_CHECKING:
    from latentc.compiler.batch_unit import BatchUnit
    from latentc.compiler.original import Original
    from latentc.compiler.row_capture import RowCapture
    from latentc.compiler.sampling_loop import Drawing
    from latentc.compiler.sampling_options import SamplingOptions
    from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class Calibrate(ResumableStage):
    """Draw prompts that validation never sees, and keep inputs spread over prompts and steps.

    Args:
        family: name of a latentc.recipes.family.Family.
        sampling: as the reference draws.
        prompts: other ones than the reference's.
        seeds: one a prompt.
        samples: how many inputs of each component are kept at most.
        rows: how many rows of what each linear of the denoiser multiplies are kept; 0 keeps none.
    """

    name: ClassVar[str] = "calibrate"
    version: ClassVar[int] = 2

    family: str
    sampling: SamplingOptions
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    samples: int
    rows: int = 0

    def options(self) -> dict[str, Json]:
        """What is drawn, how, how much of it is kept, and by which packages."""
        return {
            **drawing_identity(self.family, self.sampling, self.prompts, self.seeds),
            "samples": self.samples,
            "rows": self.rows,
        }

    def resume(self, inputs: Mapping[str, Path], out: Path, units: Path, progress: Progress) -> None:
        """Write the samples into ``out``; takes no inputs. A unit is a batch of prompts.

        Raises:
            ModelError: the original cannot be loaded, or gives NaN or infinity.
        """
        import numpy as np

        from latentc.compiler.batches import batches_of
        from latentc.compiler.original import Original
        from latentc.compiler.sampling_loop import Drawing, Outcome, records_of, spread
        from latentc.recipes.families.catalogue import family_named

        family = family_named(self.family)
        finished = FinishedUnits(
            units, len(batches_of(len(self.prompts), self.sampling.height, self.sampling.width))
        )
        kept = finished.count()
        words = f"; {kept} of {finished.total} batches were drawn before" if kept else ""
        progress(0.9 * kept / finished.total, f"loading the original{words}")
        original = Original(family, self.sampling)
        places = spread(self.samples, len(self.prompts), self.sampling.steps, is_guided=original.is_guided)
        rows = out / str(family.denoiser) / ROWS
        _remove_all_but(rows, out)
        with ExitStack() as stack:
            capture = stack.enter_context(self._capture(original, rows)) if self.rows else None
            drawing = Drawing(
                original, self.prompts, self.seeds, places=places, trajectory_prompts=0, capture=capture
            )
            drawn = tuple(_drawn(drawing, capture, finished, progress))
        denoiser = {place: record for unit in drawn for place, record in unit.denoiser.items()}
        outcome = Outcome(
            dict(drawing.token_ids),
            np.concatenate([unit.final_latents for unit in drawn]),
            np.concatenate([unit.pictures for unit in drawn]),
            tuple(denoiser[place] for place in places),
        )
        for spec in family.components:
            progress(0.95, f"inputs of {spec.component}")
            folder = out / str(spec.component)
            folder.mkdir(exist_ok=True)
            for number, record in enumerate(records_of(original, outcome, spec.component, self.samples)):
                np.savez(folder / f"{number:04d}.npz", allow_pickle=False, **record.inputs)
        progress(1.0, f"{len(places)} inputs of the denoiser")

    def _capture(self, original: Original, folder: Path) -> RowCapture:
        from latentc.compiler.batches import batches_of
        from latentc.compiler.row_capture import RowCapture

        folder.mkdir(parents=True, exist_ok=True)
        return RowCapture(
            original.denoiser,
            folder,
            rows=self.rows,
            prompts=len(self.prompts),
            calls=self.sampling.steps,
            batches=len(batches_of(len(self.prompts), self.sampling.height, self.sampling.width)),
            seed=0,
        )


def _drawn(
    drawing: Drawing, capture: RowCapture | None, finished: FinishedUnits, progress: Progress
) -> Iterator[BatchUnit]:
    """Every batch in order: as it was drawn before, or drawn now and kept."""
    from latentc.compiler.batch_unit import BatchUnit, arrays_from_unit, unit_from_arrays

    for number, batch in enumerate(drawing.batches):
        arrays = finished.read(number)
        if arrays is not None:
            unit = unit_from_arrays(arrays)
            if capture is None or (unit.rows is not None and capture.find(unit.rows)):
                yield unit
                continue
            finished.forget(number)
        before = finished.count()

        def part(done: float, words: str, before: int = before) -> None:
            progress(0.04 + 0.9 * (before + done) / finished.total, words)

        one = drawing.draw(batch, part)
        rows = None if capture is None else capture.end()
        unit = BatchUnit(one.final_latents, one.pictures, one.denoiser, rows)
        finished.write(number, arrays_from_unit(unit))
        yield unit


def _remove_all_but(kept: Path, folder: Path) -> None:
    """Empty ``folder`` of what a stopped run wrote last, which is quickly made again; ``kept`` stays."""
    for path in folder.iterdir():
        if path == kept:
            continue
        if path in kept.parents:
            _remove_all_but(kept, path)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
