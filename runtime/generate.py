"""From a bundle and a prompt to a picture. PIPELINES is the catalogue of families that run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentc.errors import InternalError, UsageError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from latentc.runtime.bundle import Bundle, open_bundle
from latentc.runtime.flux import Flux
from latentc.runtime.noise import initial_latent, step_noise
from latentc.runtime.picture import pixels_from_image
from latentc.runtime.pipeline import Embeddings, Observer, Pipeline
from latentc.runtime.session import open_session
from latentc.runtime.stable_diffusion import StableDiffusion
from latentc.runtime.stable_diffusion_xl import StableDiffusionXL
from latentc.runtime.tokenize import open_tokenizer

PIPELINES: tuple[tuple[str, type[Pipeline]], ...] = (
    (STABLE_DIFFUSION.name, StableDiffusion),
    (STABLE_DIFFUSION_XL.name, StableDiffusionXL),
    (FLUX.name, Flux),
)


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


def generate(
    source: Pipeline | Bundle | Path,
    prompt: str,
    *,
    negative_prompt: str = "",
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    threads: int | None = None,
    observer: Observer | None = None,
    tell: Callable[[str], None] | None = None,
) -> NDArray[np.uint8]:
    """Draw one picture; the same arguments and bundle give the same picture.

    Args:
        source: an open pipeline, which stays open; or a bundle or its folder, opened for this picture,
            one component at a time: each is needed once, so the least memory costs no time.
        prompt: in words.
        negative_prompt: what to move away from; families without one refuse it.
        seed: 0…2**64-1.
        steps: denoiser calls; None takes the manifest's, as below.
        guidance: guidance scale.
        height: pixels.
        width: pixels.
        threads: when a bundle is opened, of onnxruntime on the CPU; None takes one a physical core.
        observer: called after each step.
        tell: called with a line for the user when the end of a prompt did not fit.

    Returns:
        [H, W, 3] uint8.

    Raises:
        UsageError: a size, seed, step count, guidance or negative prompt that this bundle cannot take.
        BundleError: a file of the bundle is damaged.
        TargetError: this machine cannot run the bundle, or a component gives NaN.
    """
    if not isinstance(source, Pipeline):
        with open_pipeline(source, threads=threads or 0, low_memory=True) as pipeline:
            return generate(
                pipeline,
                prompt,
                negative_prompt=negative_prompt,
                seed=seed,
                steps=steps,
                guidance=guidance,
                height=height,
                width=width,
                observer=observer,
                tell=tell,
            )
    sampling, space = source.manifest.sampling, source.manifest.latent
    _check_guidance(source, guidance)
    if negative_prompt and not source.takes_negative_prompt:
        raise UsageError(
            "--negative-prompt", f"family '{source.manifest.family}' has no negative prompt", "leave it out"
        )
    pixels = (
        _checked_size(source, "--height", sampling.height if height is None else height),
        _checked_size(source, "--width", sampling.width if width is None else width),
    )
    size = (space.channels, pixels[0] // space.downscale, pixels[1] // space.downscale)
    scale = sampling.guidance if guidance is None else guidance
    first = initial_latent([seed], *size)
    embeddings = source.encode_text([prompt])
    negative = source.encode_negative(negative_prompt, embeddings) if source.wants_negative(scale) else None
    if tell is not None:
        _tell_of_unread(tell, "--prompt", embeddings)
        _tell_of_unread(tell, "--negative-prompt", negative)
    latent = source.denoise(
        first,
        embeddings,
        negative=negative,
        steps=steps,
        guidance=scale,
        step_noise=lambda index: step_noise([seed], index, *size),
        observer=observer,
    )
    picture: NDArray[np.uint8] = pixels_from_image(source.decode(latent))[0]
    return picture


def _tell_of_unread(tell: Callable[[str], None], option: str, embeddings: Embeddings | None) -> None:
    for words in () if embeddings is None else embeddings.unread:
        if words:
            tell(f"{option} is longer than this model reads; it does not see: {words}")


def _checked_size(pipeline: Pipeline, option: str, pixels: int) -> int:
    """``pixels`` itself; raises UsageError, naming the nearest size, when the family cannot draw it."""
    multiple = pipeline.size_multiple
    if pixels < multiple or pixels % multiple:
        raise UsageError(
            option,
            f"is {pixels}, wanted a multiple of {multiple}",
            f"use {max(1, round(pixels / multiple)) * multiple}",
        )
    return pixels


def _check_guidance(pipeline: Pipeline, guidance: float | None) -> None:
    """Raise UsageError for a guidance scale that is no number, or that nothing would look at."""
    if guidance is None:
        return
    if not math.isfinite(guidance) or guidance < 0:
        raise UsageError("--guidance", f"is {guidance:g}, wanted 0 or more", "use 1 for none")
    if not pipeline.takes_guidance:
        raise UsageError("--guidance", "this model was distilled without a guidance scale", "leave it out")
