"""Sampling loop: draw many prompts with the original and keep what reference and calibration need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from latentc.compiler.batches import batches_of
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
class Outcome:
    """What records of components are made of, for P prompts.

    Args:
        token_ids: [P, T] by tokenizer folder.
        final_latents: [P, C, h, w].
        pictures: [P, H, W, 3].
        denoiser: records at the places asked for, in their order.
    """

    token_ids: Arrays
    final_latents: npt.NDArray[np.float32]
    pictures: npt.NDArray[np.uint8]
    denoiser: tuple[Record, ...]


@dataclass(frozen=True)
class Drawn(Outcome):
    """P prompts, drawn.

    Args:
        negative_token_ids: [1, T] by tokenizer folder; empty without guidance.
        embeddings: [P, …] by the family's names.
        negative_embeddings: [1, …]; empty without guidance.
        initial_latents: [P, C, h, w], deviation 1.
        step_noise: [P, steps - 1, C, h, w] for LCM, else None.
        trajectory: [Q, steps + 1, C, h, w] of the first Q prompts.
    """

    negative_token_ids: Arrays
    embeddings: Arrays
    negative_embeddings: Arrays
    initial_latents: npt.NDArray[np.float32]
    step_noise: npt.NDArray[np.float32] | None
    trajectory: npt.NDArray[np.float32]


@dataclass(frozen=True)
class DrawnBatch:
    """The B prompts of one batch, drawn.

    Args:
        embeddings: [B, …] by the family's names.
        step_noise: [B, steps - 1, C, h, w] for LCM, else None.
        trajectory: [steps + 1, C, h, w] for each of its prompts whose trajectory is kept.
        final_latents: [B, C, h, w].
        pictures: [B, H, W, 3].
        denoiser: records at those of the places that are in this batch.
    """

    embeddings: Tensors
    step_noise: npt.NDArray[np.float32] | None
    trajectory: list[npt.NDArray[np.float32]]
    final_latents: npt.NDArray[np.float32]
    pictures: npt.NDArray[np.uint8]
    denoiser: Mapping[Place, Record]


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


class Drawing:
    """Prompts ready to be drawn with noise from latentc.runtime.noise.

    A batch is the same whichever others are drawn, so one that was drawn before need not be drawn again.

    Args:
        original: what draws.
        prompts: P texts.
        seeds: P numbers.
        places: where records of the denoiser are kept.
        trajectory_prompts: for how many of the first prompts every step is kept.
        capture: looks on.
    """

    def __init__(
        self,
        original: Original,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        places: Sequence[Place],
        trajectory_prompts: int,
        capture: RowCapture | None = None,
    ) -> None:
        options = original.options
        self._original = original
        self._prompts = prompts
        self._seeds = seeds
        self._places = places
        self._trajectory_prompts = trajectory_prompts
        self._capture = capture
        self.initial_latents = runtime_noise.initial_latent(seeds, *original.latent_shape)
        self.token_ids = original.token_ids(prompts)
        self.negative_token_ids = original.token_ids([options.negative_prompt]) if original.is_guided else {}
        self.negative = original.embed_negative()
        self.batches = batches_of(len(prompts), options.height, options.width)

    def draw(self, batch: range, progress: Progress) -> DrawnBatch:
        """Draw one of ``batches``; ``progress`` is told its share.

        Raises:
            ModelError: the pipeline gives NaN or infinity for a prompt.
        """
        original, part = self._original, slice(batch.start, batch.stop)
        steps = original.options.steps
        takes_noise = original.options.scheduler == "lcm" and steps > 1
        embedded = original.embed({name: ids[part] for name, ids in self.token_ids.items()})
        # [B, steps - 1, C, h, w]
        fresh = _step_noise(original, self._seeds[part], steps) if takes_noise else None
        if self._capture is not None:
            self._capture.begin(batch)
        records: dict[Place, Record] = {}
        watch = _Watch(original, batch.start, self._places, self._trajectory_prompts, records)

        def observe(call: DenoiserCall) -> None:
            watch.look(call)
            progress((call.step + 1) / steps, f"drawing prompts {batch.start + 1}…{batch.stop}")

        noise = self.initial_latents[part]
        latents = original.denoise(torch.from_numpy(noise), embedded, self.negative, _given(fresh), observe)
        if not bool(latents.isfinite().all()):
            bad = batch.start + int((~latents.flatten(1).isfinite().all(1)).nonzero()[0])
            raise ModelError(
                str(original.options.model_root),
                f"the original itself gives NaN or infinity for prompt {bad}: '{self._prompts[bad]}'",
                "check the checkpoint with diffusers alone; it cannot serve as a reference",
            )
        return DrawnBatch(
            embeddings=embedded,
            step_noise=fresh,
            trajectory=watch.trajectory(noise * float(original.init_noise_sigma)),
            final_latents=latents.numpy(),
            pictures=original.pictures(latents),
            denoiser=records,
        )


def draw(
    original: Original,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    places: Sequence[Place],
    trajectory_prompts: int,
    progress: Progress,
) -> Drawn:
    """Draw ``prompts``, all of them.

    Raises:
        ModelError: the pipeline gives NaN or infinity for a prompt.
    """
    drawing = Drawing(original, prompts, seeds, places=places, trajectory_prompts=trajectory_prompts)
    drawn: list[DrawnBatch] = []
    for batch in drawing.batches:

        def part(done: float, words: str, batch: range = batch) -> None:
            progress((batch.start + done * len(batch)) / len(prompts), words)

        drawn.append(drawing.draw(batch, part))
    steps = original.options.steps
    records = {place: record for one in drawn for place, record in one.denoiser.items()}
    fresh = [one.step_noise for one in drawn if one.step_noise is not None]
    kept = [trajectory for one in drawn for trajectory in one.trajectory]
    return Drawn(
        token_ids=dict(drawing.token_ids),
        negative_token_ids=dict(drawing.negative_token_ids),
        embeddings={
            name: torch.cat([one.embeddings[name] for one in drawn]).numpy() for name in drawn[0].embeddings
        },
        negative_embeddings={name: tensor.numpy() for name, tensor in (drawing.negative or {}).items()},
        initial_latents=drawing.initial_latents,
        step_noise=np.concatenate(fresh) if fresh else None,
        trajectory=np.stack(kept) if kept else np.zeros((0, steps + 1, *original.latent_shape), np.float32),
        final_latents=np.concatenate([one.final_latents for one in drawn]),
        pictures=np.concatenate([one.pictures for one in drawn]),
        denoiser=tuple(records[place] for place in places),
    )


def records_of(original: Original, drawn: Outcome, component: Component, count: int) -> tuple[Record, ...]:
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
            given = torch.from_numpy(drawn.token_ids[spec.tokenizer][prompt : prompt + 1])
        with torch.no_grad():
            outputs = original.run(component, given)
        results: Arrays = {name: tensor.contiguous().numpy() for name, tensor in outputs.items()}
        records.append(Record({spec.inputs[0].name: given.numpy()}, results))
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
