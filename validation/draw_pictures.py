"""Draw the reference's prompts with a bundle, from the reference's own noise and text embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from latentc.errors import BundleError
from latentc.recipes.family import Component, Family
from latentc.runtime.picture import pixels_from_image
from latentc.runtime.pipeline import Embeddings, Pipeline, Step
from latentc.validation.measured import Measured
from latentc.validation.progress import Clock, Progress, part_of
from latentc.validation.reference import Floats, Picture, Reference, Tensors
from latentc.validation.report import Timing
from latentc.validation.workers import each

_DENOISING_SHARE = 0.95
"""Of the time that drawing takes; the rest decodes."""


@dataclass(frozen=True)
class Drawing:
    """What a bundle drew.

    Args:
        trajectory: [Q, steps, C, h, w] float32, the latents after each step of the first Q prompts.
        final_latents: [P, C, h, w] float32.
        pictures: P of [H, W, 3] uint8.
    """

    trajectory: Floats
    final_latents: Floats
    pictures: tuple[Picture, ...]


def draw_pictures(
    pipeline: Pipeline,
    reference: Reference,
    family: Family,
    measured: Measured,
    *,
    workers: int,
    clock: Clock,
    progress: Progress,
) -> Drawing:
    """Draw every prompt of ``reference``, one in a batch as a device does, all latents before all decoding.

    Args:
        pipeline: opened; with more than one worker its sessions run in several threads at once.
        reference: says what to draw.
        family: of the bundle.
        measured: receives the timings.
        workers: prompts drawn at the same time; the pictures do not depend on it.
        clock: for the timings.
        progress: told about what is being done.

    Raises:
        BundleError: the reference lacks an embedding that the bundle needs.
        TargetError: the runtime fails, or a component gives NaN or infinity.
    """
    denoising, decoding = part_of(progress, 0, _DENOISING_SHARE), part_of(progress, _DENOISING_SHARE, 1)
    prompts = len(reference.prompts)
    initial, step_noise = reference.initial_latents(), reference.step_noise()
    embeddings = reference.embeddings()
    negative = _negative(embeddings, reference) if pipeline.wants_negative(reference.guidance) else None

    def denoise(index: int) -> tuple[Floats, list[Floats], float]:
        path: list[Floats] = []
        started = clock()
        latent = pipeline.denoise(
            initial[index : index + 1],
            _embeddings_of(embeddings, index, reference),
            negative=negative,
            steps=reference.steps,
            guidance=reference.guidance,
            step_noise=None if step_noise is None else _noise_of(step_noise, index),
            observer=_recorder(path) if index < reference.trajectory_prompts else None,
        )
        return latent, path, clock() - started

    def decode(latent: Floats) -> tuple[Picture, float]:
        started = clock()
        picture: Picture = pixels_from_image(pipeline.decode(latent))[0]
        return picture, clock() - started

    pipeline.session(family.denoiser)  # opened before the clock runs, and before any worker
    drawn = each(range(prompts), denoise, workers, denoising, f"drawing {prompts} prompts")
    finals = [latent for latent, _, _ in drawn]
    trajectories = [path for _, path, _ in drawn if path]
    pipeline.session(Component.VAE_DECODER)
    decoded = each(finals, decode, workers, decoding, f"decoding {prompts} pictures")
    progress(1.0, "drew the pictures")
    denoise_s = median(seconds for _, _, seconds in drawn)
    decode_s = median(seconds for _, seconds in decoded)
    measured.timings += [
        Timing(
            "one step, guidance and scheduler included",
            denoise_s / reference.steps,
            prompts * reference.steps,
        ),
        Timing("decoding", decode_s, prompts),
        Timing("one picture", denoise_s + decode_s, prompts),
    ]
    return Drawing(
        np.stack([np.concatenate(path) for path in trajectories]),
        np.concatenate(finals),
        tuple(picture for picture, _ in decoded),
    )


def _recorder(path: list[Floats]) -> Callable[[Step], None]:
    return lambda step: path.append(step.latent.copy())


def _noise_of(step_noise: Floats, index: int) -> Callable[[int], Floats]:
    return lambda step: step_noise[index, step][None]


def _embeddings_of(embeddings: Tensors, index: int, reference: Reference) -> Embeddings:
    pooled = embeddings.get("pooled_states")
    return Embeddings(
        _floats(embeddings, "text_states", reference)[index : index + 1],
        None if pooled is None else pooled[index : index + 1].astype(np.float32),
    )


def _negative(embeddings: Tensors, reference: Reference) -> Embeddings:
    pooled = embeddings.get("negative.pooled_states")
    return Embeddings(
        _floats(embeddings, "negative.text_states", reference),
        None if pooled is None else pooled.astype(np.float32),
    )


def _floats(embeddings: Tensors, name: str, reference: Reference) -> Floats:
    if name not in embeddings:
        raise BundleError(
            str(reference.root / "embeddings.npz"),
            f"has the keys {', '.join(sorted(embeddings))}, expected '{name}'",
            "build the reference again: latentc build RECIPE --out DIR",
        )
    return embeddings[name].astype(np.float32)
