"""Sensitivity: measure on the original how much of each linear's error reaches the final latents.

out/gains.json   see latentc.passes.layer_gains
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latentc.compiler.finished_units import share_finished
from latentc.compiler.sampling_options import drawing_identity
from latentc.compiler.stage import Progress, ResumableStage

if TYPE_CHECKING:
    from latentc.compiler.sampling_options import SamplingOptions
    from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class Sensitivity(ResumableStage):
    """Draw prompts, and find gradients of their final latents for the linears of the denoiser.

    Args:
        family: name of a latentc.recipes.family.Family.
        sampling: as the reference draws.
        prompts: other ones than the reference's.
        seeds: one a prompt.
    """

    name: ClassVar[str] = "sensitivity"
    version: ClassVar[int] = 3

    family: str
    sampling: SamplingOptions
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    def options(self) -> dict[str, Json]:
        """What is drawn, how, and by which packages."""
        return drawing_identity(self.family, self.sampling, self.prompts, self.seeds)

    def resume(self, inputs: Mapping[str, Path], out: Path, units: Path, progress: Progress) -> None:
        """Write the gains into ``out``; takes no inputs. A unit is a batch of prompts, or one gradient of it.

        Raises:
            ModelError: the original cannot be loaded, or gives NaN or infinity.
        """
        from latentc.compiler.original import Original
        from latentc.compiler.sensitivity import measure_gains
        from latentc.passes.layer_gains import write_gains
        from latentc.recipes.families.catalogue import family_named

        kept = share_finished(units)
        words = f"; {kept:.0%} was measured before" if kept else ""
        progress(0.98 * kept, f"loading the original{words}")
        original = Original(family_named(self.family), self.sampling)
        gains = measure_gains(
            original, self.prompts, self.seeds, units, lambda done, words: progress(0.02 + 0.98 * done, words)
        )
        write_gains(gains, out)
        progress(1.0, f"{len(gains)} linears")
