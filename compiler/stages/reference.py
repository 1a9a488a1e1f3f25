"""Reference: what the original fp16 pipeline draws, in the form that latentc.validation.reference reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latentc.compiler.sampling_options import drawing_identity, drawing_tools
from latentc.compiler.stage import Progress, Stage
from latentc.validation.reference import FORMAT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from latentc.compiler.sampling_loop import Arrays, Drawn, Record
    from latentc.compiler.sampling_options import SamplingOptions
    from latentc.recipes.family import ComponentSpec
    from latentc.runtime.manifest import Json

GOLDEN_SAMPLES = 8
"""Golden inputs and outputs a component: enough for every part of a schedule, small enough to ship."""


@dataclass(frozen=True)
class Reference(Stage):
    """Draw the validation prompts with the original and write down everything needed to ask it again.

    The weights are the original's in fp16, LoRAs fused by diffusers and peft; the arithmetic is float32.

    Args:
        family: name of a latentc.recipes.family.Family.
        sampling: how it draws.
        prompts: P texts.
        seeds: P numbers, 0…2**64-1; the noise comes from latentc.runtime.noise.
        trajectory_prompts: for how many of the first prompts every step is stored.
        clip_root: a CLIPModel folder for CLIP score and feature distance; None: not measured.
        clip_digest: ClipFolder.digest of it, empty without it.
    """

    name: ClassVar[str] = "reference"
    version: ClassVar[int] = 1

    family: str
    sampling: SamplingOptions
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    trajectory_prompts: int = 8
    clip_root: Path | None = None
    clip_digest: str = ""

    def options(self) -> dict[str, Json]:
        """What is drawn, how, by which packages, and which CLIP looks at it."""
        return {
            **drawing_identity(self.family, self.sampling, self.prompts, self.seeds),
            "trajectory_prompts": self.trajectory_prompts,
            "clip": self.clip_digest,
        }

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Write the reference folder; takes no inputs.

        Raises:
            ModelError: the original, an adapter or CLIP cannot be loaded, or gives NaN or infinity.
        """
        from latentc.compiler.original import Original
        from latentc.compiler.sampling_loop import draw, records_of, spread
        from latentc.recipes.families.catalogue import family_named

        progress(0.0, "loading the original")
        original = Original(family_named(self.family), self.sampling)
        P = len(self.prompts)
        drawn = draw(
            original,
            self.prompts,
            self.seeds,
            places=spread(GOLDEN_SAMPLES, P, self.sampling.steps, is_guided=original.is_guided),
            trajectory_prompts=min(self.trajectory_prompts, P),
            progress=lambda done, words: progress(0.05 + 0.75 * done, words),
        )
        _write_drawn(drawn, out)
        (out / "components").mkdir()
        for spec in original.family.components:
            progress(0.8, f"golden tensors of {spec.component}")
            records = records_of(original, drawn, spec.component, GOLDEN_SAMPLES)
            _savez(out / "components" / f"{spec.component}.npz", _stacked(spec, records))
        if self.clip_root is not None:
            from latentc.compiler.clip_folder import open_clip
            from latentc.compiler.clip_reference import write_clip

            progress(0.85, "CLIP")
            write_clip(open_clip(self.clip_root), self.prompts, out)
        self._write_contents(out)
        progress(1.0, f"{P} pictures")

    def _write_contents(self, out: Path) -> None:
        contents = {
            "format": FORMAT,
            "family": self.family,
            "prompts": list(self.prompts),
            "seeds": list(self.seeds),
            "negative_prompt": self.sampling.negative_prompt,
            "steps": self.sampling.steps,
            "guidance": self.sampling.guidance,
            "height": self.sampling.height,
            "width": self.sampling.width,
            "trajectory_prompts": min(self.trajectory_prompts, len(self.prompts)),
            "weights": "float16",
            "arithmetic": "float32",
            "toolchain": dict(drawing_tools(self.sampling)),
        }
        text = json.dumps(contents, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (out / "reference.json").write_text(text, encoding="utf-8")


def _write_drawn(drawn: Drawn, out: Path) -> None:
    from PIL import Image

    _savez(out / "initial_latents.npz", {"latents": drawn.initial_latents})
    if drawn.step_noise is not None:
        _savez(out / "step_noise.npz", {"noise": drawn.step_noise})
    for file, arrays, negative in (
        ("token_ids.npz", drawn.token_ids, drawn.negative_token_ids),
        ("embeddings.npz", drawn.embeddings, drawn.negative_embeddings),
    ):
        _savez(out / file, arrays | {f"negative.{name}": array for name, array in negative.items()})
    _savez(out / "trajectory.npz", {"latents": drawn.trajectory})
    _savez(out / "final_latents.npz", {"latents": drawn.final_latents})
    (out / "pictures").mkdir()
    for number, picture in enumerate(drawn.pictures):
        Image.fromarray(picture).save(out / "pictures" / f"{number:04d}.png")


def _stacked(spec: ComponentSpec, records: tuple[Record, ...]) -> Arrays:
    """Records joined on B; what has no B is the same in all of them and stands once."""
    import numpy as np

    single = {tensor.name for tensor in spec.inputs if tensor.axes[0] != "B"}
    stacked: Arrays = {}
    for kind, tensors in (
        ("input", [record.inputs for record in records]),
        ("output", [record.outputs for record in records]),
    ):
        for name, first in tensors[0].items():
            alone = name in single
            stacked[f"{kind}.{name}"] = first if alone else np.concatenate([t[name] for t in tensors])
    return stacked


def _savez(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    import numpy as np

    np.savez(path, allow_pickle=False, **arrays)
