"""Sampling loop: draw many prompts with the original and keep what reference and calibration need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from latentc.compiler.original import DenoiserCall, Original, Tensors
from latentc.errors import ModelError
from latentc.recipes.family import Component, TensorSpec
from latentc.runtime import noise as runtime_noise

if TYPE_CHECKING:
    import numpy.typing as npt

    from latentc.compiler.row_capture import RowCapture
    from latentc.compiler.stage import Progress

Array: TypeAlias = "npt.NDArray[np.float32] | npt.NDArray[np.int64]"
Arrays: TypeAlias = "dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]"

MOST_TOGETHER = 16
"""Prompts drawn together at most."""

PIXELS_TOGETHER = 2**18
"""Pixels drawn together at most, but at least one picture: a VAE decoder takes about 10 KiB a pixel."""


@dataclass(frozen=True)
class Place:
    """A moment of a run: which prompt, which step, and with guidance which half (0 negative, 1 prompt)."""

    prompt: int
    step: int
    half: int


@dataclass(frozen=True)
class Record:
    """What a component took and gave for one prompt: B is 1, tensors without B as they are."""

    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class Drawn:
    """P prompts, drawn.

    Args:
        token_ids: [P, T] by tokenizer folder.
        negative_token_ids: [1, T] by tokenizer folder; empty without guidance.
        embeddings: [P, …] by the family's names.
        negative_embeddings: [1, …]; empty without guidance.
        initial_latents: [P, C, h, w], deviation 1.
        step_noise: [P, steps - 1, C, h, w] for LCM, else None.
        trajectory: [Q, steps + 1, C, h, w] of the first Q prompts.
        final_latents: [P, C, h, w].
        pictures: [P, H, W, 3].
        denoiser: records at the places asked for, in their order.
    """

    token_ids: Arrays
    negative_token_ids: Arrays
    embeddings: Arrays
    negative_embeddings: Arrays
    initial_latents: npt.NDArray[np.float32]
    step_noise: npt.NDArray[np.float32] | None
    trajectory: npt.NDArray[np.float32]
    final_latents: npt.NDArray[np.float32]
    pictures: npt.NDArray[np.uint8]
    denoiser: tuple[Record, ...]


def batch_size(height: int, width: int) -> int:
    """How many pictures of ``height`` × ``width`` pixels are drawn together; sums depend on it a little."""
    return max(1, min(MOST_TOGETHER, PIXELS_TOGETHER // (height * width)))


def spread(count: int, prompts: int, steps: int, *, is_guided: bool) -> tuple[Place, ...]:
    """``count`` places, evenly over the steps and in turn over prompts and halves.

    Every step is met before one is met twice; no two places are equal while there are others left.
    """
    places: dict[Place, None] = {}
    wanted = min(count, prompts * steps * (2 if is_guided else 1))
    turn = 0
    while len(places) < wanted:
        step = ((2 * turn + 1) * steps) // (2 * wanted) % steps if turn < wanted else turn % steps
        prompt = (turn + turn // (prompts * steps)) % prompts
        # two of three inputs of the prompt's own half: it decides the picture
        half = 0 if is_guided and turn % 3 == 2 else 1
        place = Place(prompt, step, half)
        while place in places:
            place = _next(place, prompts, steps, is_guided=is_guided)
        places[place] = None
        turn += 1
    return tuple(places)


def _next(place: Place, prompts: int, steps: int, *, is_guided: bool) -> Place:
    if place.prompt + 1 < prompts:
        return Place(place.prompt + 1, place.step, place.half)
    if is_guided and place.half == 1:
        return Place(0, place.step, 0)
    return Place(0, (place.step + 1) % steps, 1)


def draw(
    original: Original,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    places: Sequence[Place],
    trajectory_prompts: int,
    progress: Progress,
    capture: RowCapture | None = None,
) -> Drawn:
    """Draw ``prompts`` in batches with noise from latentc.runtime.noise; ``capture`` looks on.

    Raises:
        ModelError: the pipeline gives NaN or infinity for a prompt.
    """
    steps = original.options.steps
    noise = runtime_noise.initial_latent(seeds, *original.latent_shape)
    takes_noise = original.options.scheduler == "lcm" and steps > 1
    token_ids = original.token_ids(prompts)
    negative_ids = original.token_ids([original.options.negative_prompt]) if original.is_guided else {}
    negative = original.embed(negative_ids) if negative_ids else None
    embeddings: list[Tensors] = []
    fresh: list[npt.NDArray[np.float32]] = []
    kept: list[npt.NDArray[np.float32]] = []
    finals: list[torch.Tensor] = []
    pictures: list[npt.NDArray[np.uint8]] = []
    records: dict[Place, Record] = {}
    together = batch_size(original.options.height, original.options.width)
    for start in range(0, len(prompts), together):
        batch = slice(start, min(start + together, len(prompts)))
        embedded = original.embed({name: ids[batch] for name, ids in token_ids.items()})
        embeddings.append(embedded)
        # [B, steps - 1, C, h, w]
        batch_noise = _step_noise(original, seeds[batch], steps) if takes_noise else None
        if batch_noise is not None:
            fresh.append(batch_noise)
        if capture is not None:
            capture.begin(range(batch.start, batch.stop))
        watch = _Watch(original, start, places, trajectory_prompts, records)

        def observe(call: DenoiserCall, watch: _Watch = watch, batch: slice = batch) -> None:
            watch.look(call)
            share = (call.step + 1) / steps * (batch.stop - batch.start)
            progress((batch.start + share) / len(prompts), f"drawing prompts {batch.start + 1}…{batch.stop}")

        latents = original.denoise(
            torch.from_numpy(noise[batch]), embedded, negative, _given(batch_noise), observe
        )
        if not bool(latents.isfinite().all()):
            bad = start + int((~latents.flatten(1).isfinite().all(1)).nonzero()[0])
            raise ModelError(
                str(original.options.model_root),
                f"the original itself gives NaN or infinity for prompt {bad}: '{prompts[bad]}'",
                "check the checkpoint with diffusers alone; it cannot serve as a reference",
            )
        kept.extend(watch.trajectory(noise[batch] * float(original.init_noise_sigma)))
        finals.append(latents)
        pictures.append(original.pictures(latents))
    return Drawn(
        token_ids=dict(token_ids),
        negative_token_ids=dict(negative_ids),
        embeddings={name: torch.cat([e[name] for e in embeddings]).numpy() for name in embeddings[0]},
        negative_embeddings={name: tensor.numpy() for name, tensor in (negative or {}).items()},
        initial_latents=noise,
        step_noise=np.concatenate(fresh) if fresh else None,
        trajectory=np.stack(kept) if kept else np.zeros((0, steps + 1, *original.latent_shape), np.float32),
        final_latents=torch.cat(finals).numpy(),
        pictures=np.concatenate(pictures),
        denoiser=tuple(records[place] for place in places),
    )


def records_of(original: Original, drawn: Drawn, component: Component, count: int) -> tuple[Record, ...]:
    """What ``component`` took and gave, for at most ``count`` prompts spread over the drawn ones."""
    if component is original.family.denoiser:
        return drawn.denoiser
    spec = original.family.spec(component)
    P = len(drawn.final_latents)
    records = []
    for place in range(min(count, P)):
        prompt = place * P // min(count, P)
        if component is Component.VAE_DECODER:
            given = original.decoder_input(torch.from_numpy(drawn.final_latents[prompt : prompt + 1]))
        elif component is Component.VAE_ENCODER:
            picture = drawn.pictures[prompt : prompt + 1].transpose(0, 3, 1, 2)
            given = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1.0)
        else:
            folder = "tokenizer" if component is Component.TEXT_ENCODER else "tokenizer_2"
            given = torch.from_numpy(drawn.token_ids[folder][prompt : prompt + 1])
        with torch.no_grad():
            result = original.modules[component](given)
        records.append(
            Record({spec.inputs[0].name: given.numpy()}, {spec.outputs[0].name: result.contiguous().numpy()})
        )
    return tuple(records)


def _step_noise(original: Original, seeds: Sequence[int], steps: int) -> npt.NDArray[np.float32]:
    shape = original.latent_shape
    return np.stack([runtime_noise.step_noise(seeds, step, *shape) for step in range(steps - 1)], axis=1)


def _given(batch_noise: npt.NDArray[np.float32] | None) -> Callable[[int], torch.Tensor]:
    def give(step: int) -> torch.Tensor:
        if batch_noise is None:
            raise ValueError("this scheduler draws noise in every step")
        return torch.from_numpy(np.ascontiguousarray(batch_noise[:, step]))

    return give


class _Watch:
    """Looks over one batch's shoulder."""

    def __init__(
        self,
        original: Original,
        start: int,
        places: Sequence[Place],
        trajectory_prompts: int,
        records: dict[Place, Record],
    ) -> None:
        self._spec = original.family.spec(original.family.denoiser)
        self._guided = original.is_guided
        self._start = start
        self._places = places
        self._kept = max(0, trajectory_prompts - start)
        self._records = records
        self._latents: list[npt.NDArray[np.float32]] = []

    def look(self, call: DenoiserCall) -> None:
        """Keep what is wanted of one call."""
        B = len(call.latents)
        self._latents.append(call.latents[: self._kept].numpy().copy())
        for place in self._places:
            if place.step != call.step or not self._start <= place.prompt < self._start + B:
                continue
            row = place.prompt - self._start + (B if self._guided and place.half == 1 else 0)
            specs = {spec.name: spec for spec in self._spec.inputs}
            inputs = {
                name: _row(specs.get(name), tensor, row).astype(np.float32, copy=False)
                for name, tensor in call.inputs.items()
            }
            outputs = {self._spec.outputs[0].name: _row(None, call.prediction, row)}
            self._records[place] = Record(dict(inputs), dict(outputs))

    def trajectory(self, first: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """[steps + 1, C, h, w] for each kept prompt; ``first`` is what the first step received."""
        return list(np.stack([first[: self._kept], *self._latents], axis=1)) if self._kept else []


def _row(spec: TensorSpec | None, tensor: torch.Tensor, row: int) -> npt.NDArray[np.float32]:
    """One row of B, kept as an axis; a tensor without B (FLUX's ids) as it is."""
    picked = tensor if spec is not None and spec.axes[0] != "B" else tensor[row : row + 1]
    return picked.contiguous().numpy().copy()
