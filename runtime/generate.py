"""From a bundle and a prompt to a picture. PIPELINES is the catalogue of families that run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentc.errors import InternalError, UsageError
from latentc.recipes.family import FLUX, STABLE_DIFFUSION
from latentc.runtime.bundle import Bundle, open_bundle
from latentc.runtime.flux import Flux
from latentc.runtime.noise import initial_latent, step_noise
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.picture import pixels_from_image
from latentc.runtime.pipeline import Observer, Pipeline
from latentc.runtime.session import open_session
from latentc.runtime.stable_diffusion import StableDiffusion
from latentc.runtime.tokenize import open_tokenizer

PIPELINES: tuple[tuple[str, type[Pipeline]], ...] = (
    (STABLE_DIFFUSION.name, StableDiffusion),
    (FLUX.name, Flux),
)


@dataclass(frozen=True)
class Request:
    """What to draw; None takes the manifest's value.

    Args:
        prompt: in words.
        negative_prompt: what to move away from; families without one refuse it.
        seed: 0…2**64-1.
        steps: denoiser calls.
        guidance: guidance scale.
        height: pixels.
        width: pixels.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None


def open_pipeline(
    bundle: Bundle | Path, *, threads: int = 0, low_memory: bool = False, stand_in: bool = False
) -> Pipeline:
    """The pipeline of a bundle, or of the folder of one; close it, or use it as a context.

    Args:
        bundle: opened, or its folder.
        threads: of onnxruntime on the CPU; 0 takes one a physical core.
        low_memory: hold one component at a time.
        stand_in: run every component's ONNX form on this CPU; see latentc.runtime.session.open_session.

    Raises:
        BundleError: the bundle is damaged or incomplete.
    """
    opened = open_bundle(bundle) if isinstance(bundle, Path) else bundle
    for family, kind in PIPELINES:
        if family == opened.family.name:
            return kind(
                opened.manifest,
                lambda component: open_session(opened, component, threads=threads, stand_in=stand_in),
                lambda name: open_tokenizer(opened, name),
                low_memory=low_memory,
            )
    raise InternalError("generate", f"family '{opened.family.name}' has no pipeline")


def generate(pipeline: Pipeline, request: Request, observer: Observer | None = None) -> NDArray[np.uint8]:
    """Draw one picture.

    Args:
        pipeline: opened; with ``low_memory`` the text encoders are closed before the denoiser opens.
        request: what to draw.
        observer: called after each step.

    Returns:
        [H, W, 3] uint8; the same request and bundle give the same picture.

    Raises:
        UsageError: a size, seed, step count, guidance or negative prompt that this bundle cannot take.
        BundleError: a file of the bundle is damaged.
        TargetError: this machine cannot run the bundle, or a component gives NaN.
    """
    sampling, space = pipeline.manifest.sampling, pipeline.manifest.latent
    height = sampling.height if request.height is None else request.height
    width = sampling.width if request.width is None else request.width
    for option, pixels in (("--height", height), ("--width", width)):
        if pixels < pipeline.size_multiple or pixels % pipeline.size_multiple:
            raise UsageError(
                option,
                f"is {pixels}, wanted a multiple of {pipeline.size_multiple}",
                f"use {max(1, round(pixels / pipeline.size_multiple)) * pipeline.size_multiple}",
            )
    if request.negative_prompt and not pipeline.takes_negative_prompt:
        raise UsageError(
            "--negative-prompt",
            f"family '{pipeline.manifest.family}' has no negative prompt",
            "leave it out",
        )
    _check_guidance(pipeline, request)
    guidance = sampling.guidance if request.guidance is None else request.guidance
    size = (space.channels, height // space.downscale, width // space.downscale)

    def noise(index: int) -> Float32Array:
        return step_noise([request.seed], index, *size)

    first = initial_latent([request.seed], *size)
    embeddings = pipeline.encode_text([request.prompt])
    negative = None
    if pipeline.wants_negative(guidance):
        negative = pipeline.encode_text([request.negative_prompt])
    latent = pipeline.denoise(
        first,
        embeddings,
        negative=negative,
        steps=request.steps,
        guidance=guidance,
        step_noise=noise,
        observer=observer,
    )
    picture: NDArray[np.uint8] = pixels_from_image(pipeline.decode(latent))[0]
    return picture


def _check_guidance(pipeline: Pipeline, request: Request) -> None:
    """Raise UsageError for a guidance scale that is no number, or that nothing would look at."""
    if request.guidance is None:
        return
    if not np.isfinite(request.guidance) or request.guidance < 0:
        raise UsageError("--guidance", f"is {request.guidance:g}, wanted 0 or more", "use 1 for none")
    if isinstance(pipeline, Flux) and not pipeline.takes_guidance:
        raise UsageError("--guidance", "this model was distilled without a guidance scale", "leave it out")
