"""Families: the two demo models of the benchmark, and which of their linears SVDQuant treats how."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from latentc.compiler.safetensors_file import read_safetensors
from latentc.passes.weights import matches

ROOT = Path(__file__).parents[3]
GROUP = 64
"""Inputs that share a step, in weights and activations, as SVDQuant has it."""


@dataclass(frozen=True)
class Linear:
    """A linear of a denoiser: its module's name, its inputs K and its outputs N."""

    name: str
    K: int
    N: int


@dataclass(frozen=True)
class Family:
    """A demo model.

    Args:
        name: of the recipe and the shipped model.
        pipeline_class: of diffusers.
        denoiser: folder and attribute of the denoiser.
        guidance: as the recipe draws.
        plain: patterns of weights that SVDQuant leaves at 4-bit nearest, activations unrounded: what
            turns time, pooled text and position in the schedule into modulation, and what embeds. For the
            UNet also keys and values of cross-attention, which its authors keep in 16 bits.
        floating: patterns of weights that no row of the table quantizes.
    """

    name: str
    pipeline_class: str
    denoiser: str
    guidance: float
    plain: tuple[str, ...]
    floating: tuple[str, ...]

    @property
    def is_flux(self) -> bool:
        """Whether the denoiser is FLUX's transformer."""
        return self.denoiser == "transformer"

    @property
    def folder(self) -> Path:
        """The shipped model."""
        return ROOT / "recipes" / "shapes" / "weights" / self.name

    def linears(self) -> tuple[Linear, ...]:
        """The linears that every row quantizes, sorted by name; from the checkpoint's header."""
        file = self.folder / self.denoiser / "diffusion_pytorch_model.safetensors"
        return tuple(one for one in _linears_in(file) if not matches(f"{one.name}.weight", self.floating))

    def is_plain(self, linear: Linear) -> bool:
        """Whether SVDQuant only rounds the weight of ``linear``."""
        return matches(f"{linear.name}.weight", self.plain)


@cache
def _linears_in(file: Path) -> tuple[Linear, ...]:
    weights = {name: one.shape for name, one in read_safetensors(file).tensors.items()}
    return tuple(
        Linear(name.removesuffix(".weight"), shape[1], shape[0])
        for name, shape in sorted(weights.items())
        if name.endswith(".weight") and len(shape) == 2
    )


SHAPES_SD = Family(
    "shapes-sd",
    "StableDiffusionPipeline",
    "unet",
    3.0,
    ("*attn2.to_k.weight", "*attn2.to_v.weight", "time_embedding.*", "*time_emb_proj.weight"),
    (),
)
SHAPES_FLUX = Family(
    "shapes-flux",
    "FluxPipeline",
    "transformer",
    1.0,
    ("x_embedder.weight", "context_embedder.weight", "time_text_embed.*", "*norm*.linear.weight"),
    ("proj_out.weight",),
)
FAMILIES = (SHAPES_SD, SHAPES_FLUX)
