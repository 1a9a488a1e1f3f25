"""Calibrate: record what every component takes while the original draws the calibration prompts.

out/<component>/NNNN.npz   one array an input name, B is 1; float32, ids int64
out/<denoiser>/rows/       what its linears multiply: latentc.compiler.row_capture
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latentc.compiler.sampling_options import drawing_identity
from latentc.compiler.stage import Progress, Stage
from latentc.passes.layer_rows import ROWS

if TYPE_CHECKING:
    from latentc.compiler.original import Original
    from latentc.compiler.row_capture import RowCapture
    from latentc.compiler.sampling_options import SamplingOptions
    from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class Calibrate(Stage):
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

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Write the samples into ``out``; takes no inputs.

        Raises:
            ModelError: the original cannot be loaded, or gives NaN or infinity.
        """
        import numpy as np

        from latentc.compiler.original import Original
        from latentc.compiler.sampling_loop import draw, records_of, spread
        from latentc.recipes.family import family_named

        progress(0.0, "loading the original")
        original = Original(family_named(self.family), self.sampling)
        places = spread(self.samples, len(self.prompts), self.sampling.steps, is_guided=original.is_guided)
        with ExitStack() as stack:
            capture = stack.enter_context(self._capture(original, out)) if self.rows else None
            drawn = draw(
                original,
                self.prompts,
                self.seeds,
                places=places,
                trajectory_prompts=0,
                progress=lambda done, words: progress(0.05 + 0.9 * done, words),
                capture=capture,
            )
        for spec in original.family.components:
            folder = out / str(spec.component)
            folder.mkdir(exist_ok=True)
            for number, record in enumerate(records_of(original, drawn, spec.component, self.samples)):
                np.savez(folder / f"{number:04d}.npz", allow_pickle=False, **record.inputs)
        progress(1.0, f"{len(places)} inputs of the denoiser")

    def _capture(self, original: Original, out: Path) -> RowCapture:
        from latentc.compiler.row_capture import RowCapture
        from latentc.compiler.sampling_loop import batch_size

        folder = out / str(original.family.denoiser) / ROWS
        folder.mkdir(parents=True)
        together = batch_size(self.sampling.height, self.sampling.width)
        return RowCapture(
            original.denoiser,
            folder,
            rows=self.rows,
            prompts=len(self.prompts),
            calls=self.sampling.steps,
            batches=-(-len(self.prompts) // together),
            seed=0,
        )
