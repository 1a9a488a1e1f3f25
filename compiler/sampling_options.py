"""Sampling options: how the original draws its pictures, for the reference and for calibration alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.compiler.toolchain import accelerator, threads, versions

if TYPE_CHECKING:
    from latentc.runtime.manifest import Json

SCHEDULER_CLASSES: Mapping[str, str] = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
    "flow-match-euler": "FlowMatchEulerDiscreteScheduler",
}
"""A recipe's word for a scheduler, and diffusers' class."""

_TOOLS = ("torch", "diffusers", "transformers", "numpy", "pillow")
"""The packages that compute a reference."""


@dataclass(frozen=True)
class LoraFile:
    """An adapter that is fused into the original.

    Args:
        path: its safetensors file.
        sha256: of that file.
        scale: strength; 1 is as trained.
    """

    path: Path
    sha256: str
    scale: float


@dataclass(frozen=True)
class SamplingOptions:
    """How the original draws.

    Args:
        model_root: the pipeline's folder, already screened by latentc.compiler.model_folder.open_model.
        model_digest: ModelFolder.digest of it.
        loras: fused in this order.
        scheduler: a key of SCHEDULER_CLASSES; its settings come from the model folder.
        steps: of the scheduler.
        guidance: classifier-free guidance scale; up to 1 runs without a second pass.
        height: pixels.
        width: pixels.
        negative_prompt: what guidance steers away from.
        checkpoint: one file with weights, as open_model takes it; its content is in ``model_digest``.
    """

    model_root: Path
    model_digest: str
    loras: tuple[LoraFile, ...]
    scheduler: str
    steps: int
    guidance: float
    height: int
    width: int
    negative_prompt: str = ""
    checkpoint: Path | None = None

    def identity(self) -> dict[str, Json]:
        """All of it as plain JSON, files by their digests."""
        return {
            "model": self.model_digest,
            "loras": [{"sha256": lora.sha256, "scale": lora.scale} for lora in self.loras],
            "scheduler": self.scheduler,
            "steps": self.steps,
            "guidance": self.guidance,
            "height": self.height,
            "width": self.width,
            "negative_prompt": self.negative_prompt,
        }


def drawing_identity(
    family: str, sampling: SamplingOptions, prompts: tuple[str, ...], seeds: tuple[int, ...]
) -> dict[str, Json]:
    """What decides the bytes of everything that the original draws: part of each drawing stage's options.

    Args:
        family: name of a latentc.recipes.family.Family.
        sampling: how it draws.
        prompts: P texts.
        seeds: P numbers.

    Raises:
        ToolMissing: a package that draws is not installed.
    """
    on_cpu: dict[str, Json] = {
        "family": family,
        "sampling": sampling.identity(),
        "prompts": list(prompts),
        "seeds": list(seeds),
        "toolchain": dict(drawing_tools(sampling)),
        "threads": threads(),
    }
    gpu = accelerator()
    return on_cpu | {"accelerator": gpu} if gpu else on_cpu


def drawing_tools(sampling: SamplingOptions) -> dict[str, str]:
    """Versions of the packages that draw with ``sampling``; raises ToolMissing."""
    return versions(*_TOOLS, *(("peft",) if sampling.loras else ()))
