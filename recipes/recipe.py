"""Recipe: what to build, as a value. Field by field what the YAML file says, checked once, here."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Lora(_Value):
    """A LoRA to fuse into the weights before anything else is done to them."""

    path: str
    """A safetensors file or its folder, relative to the recipe; ``demo:NAME`` for a shipped one."""
    scale: float = 1.0
    """Strength; 1 is as trained."""

    @field_validator("scale")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError("must be finite")
        return value


class Model(_Value):
    """The pipeline to compile."""

    path: str
    """A folder in diffusers' layout or one checkpoint (.safetensors), relative to the recipe; ``demo:NAME``
    for a shipped one, ``hub:ORG/NAME`` or ``hub:ORG/NAME@REVISION`` for one of the hub."""
    base: str | None = None
    """Beside one checkpoint: the folder with configs, tokenizers, scheduler and what the checkpoint lacks."""
    loras: tuple[Lora, ...] = Field(default=(), strict=False)
    """Adapters fused into the weights, in this order."""


class Sampling(_Value):
    """How pictures are drawn, unless `latentc run` is told otherwise."""

    scheduler: Literal["ddim", "euler", "lcm", "flow-match-euler"]
    """Which scheduler; its settings come from the model folder."""
    steps: int = Field(default=20, ge=1, le=1000)
    """Denoiser steps."""
    guidance: float = Field(default=1.0, ge=0, le=100)
    """Classifier-free guidance scale; 1 runs without it."""
    height: int = Field(ge=8, le=4096, multiple_of=8)
    """Pixels."""
    width: int = Field(ge=8, le=4096, multiple_of=8)
    """Pixels."""


class PassSpec(_Value):
    """A pass as written: its name and its options."""

    name: str
    options: dict[str, JsonValue] = {}


class Calibration(_Value):
    """What activations are recorded for the passes that need them."""

    prompts: str = "demo:shapes"
    """A text file with one prompt a line, relative to the recipe, or ``demo:shapes``."""
    count: int = Field(default=16, ge=1, le=4096)
    """How many prompts are drawn."""
    samples: int = Field(default=32, ge=1, le=4096)
    """How many inputs of each component are kept, spread over the steps."""
    rows: int = Field(default=1024, ge=0, le=65536)
    """How many rows of what each linear of the denoiser multiplies are kept; half as many are held out."""
    sensitivity: int = Field(default=8, ge=1, le=16)
    """How many prompts are drawn for every layer when a pass asks how sensitive each one is."""
    seed: int = Field(default=1, ge=0)
    """Where the noise comes from."""


class Validation(_Value):
    """What the gate compares, and the limits it holds the result to."""

    prompts: str = "demo:shapes"
    """A text file with one prompt a line, relative to the recipe, or ``demo:shapes``."""
    count: int = Field(default=64, ge=0, le=65536)
    """How many prompts are drawn; 0: none, and the bundle is not validated."""
    seed: int = Field(default=0, ge=0)
    """Where the noise comes from; prompt number i uses seed + i."""
    clip: str | None = None
    """A CLIPModel folder for CLIP score and feature distance; ``demo:shapes-clip``; none: not measured."""
    limits: dict[str, float] = {}
    """Metric, such as ``pictures.psnr_db``, to its limit."""


class Recipe(_Value):
    """One thing to build. A recipe in, a bundle a target out."""

    name: Name
    """What the bundle is called."""
    model: Model
    sampling: Sampling
    targets: tuple[str, ...] = Field(min_length=1, strict=False)
    """Names from `latentc targets`."""
    passes: dict[str, tuple[PassSpec, ...]] = Field(default={}, strict=False)
    """By component (``denoiser``, ``text_encoder``, ``vae_decoder`` …): the passes, in order."""
    calibration: Calibration = Calibration()
    validation: Validation = Validation()

    @field_validator("targets")
    @classmethod
    def _once_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if value.count(name) > 1:
                raise ValueError(f"'{name}' is named twice")
        return value

    @field_validator("passes", mode="before")
    @classmethod
    def _specs(cls, value: object) -> object:
        """Turn ``quantize-int4`` and ``split-low-rank: {rank: 32}`` into name and options."""
        if not isinstance(value, dict):
            return value
        return {
            name: tuple(_spec(entry) for entry in _listed(name, entries)) for name, entries in value.items()
        }


def _listed(name: object, entries: object) -> list[object]:
    if not isinstance(entries, list | tuple):
        raise ValueError(f"'{name}' must be a list of passes")  # noqa: TRY004 # pydantic reports ValueError only
    return list(entries)


def _spec(entry: object) -> object:
    if isinstance(entry, str):
        return {"name": entry}
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, options),) = entry.items()
        return {"name": name, "options": {} if options is None else options}
    return entry
