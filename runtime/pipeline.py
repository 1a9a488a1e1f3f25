"""Pipeline: text encoders, denoiser and decoder of a bundle, held open and run by hand.

A family's own file says how its denoiser is called; what families share is here. Latents are [B, C, h, w]
for every caller, and both latents and embeddings may come from elsewhere, so that another pipeline's own
can be put in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import numpy as np

from latentc.errors import BundleError, TargetError, UsageError
from latentc.recipes.family import Component
from latentc.runtime.manifest import Manifest
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.scheduler import Scheduler, scheduler_from_entry
from latentc.runtime.session import Array, Session
from latentc.runtime.tokenize import PromptTokenizer

OpenSession: TypeAlias = Callable[[Component], Session]
OpenTokenizer: TypeAlias = Callable[[str], PromptTokenizer]
StepNoise: TypeAlias = Callable[[int], Float32Array]


@dataclass(frozen=True)
class Embeddings:
    """What the text encoders make of B prompts.

    Args:
        text_states: [B, T, D] float32.
        pooled_states: [B, D] float32 for families that take a pooled prompt, else None.
        unread: the end of each prompt that did not fit, empty where all did; none when made elsewhere.
    """

    text_states: Float32Array
    pooled_states: Float32Array | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """What an observer sees after each step.

    Args:
        index: 0…steps-1.
        timestep: what the schedule calls it.
        inputs: what the denoiser was given, by its input names.
        prediction: the denoiser's output, before guidance.
        latent: [B, C, h, w] float32 after the step.
    """

    index: int
    timestep: float
    inputs: dict[str, Array]
    prediction: Float32Array
    latent: Float32Array


Observer: TypeAlias = Callable[[Step], None]


class Pipeline(ABC):
    """A bundle opened once; sessions open when they are first needed.

    Args:
        manifest: the bundle's.
        open_session: opens a component.
        open_tokenizer: opens a tokenizer by its folder name.
        low_memory: keep one component open at a time, as boards with 8 GB or less need.
    """

    def __init__(
        self,
        manifest: Manifest,
        open_session: OpenSession,
        open_tokenizer: OpenTokenizer,
        *,
        low_memory: bool = False,
    ) -> None:
        self.manifest = manifest
        self._open_session = open_session
        self._open_tokenizer = open_tokenizer
        self._low_memory = low_memory
        self._sessions: dict[Component, Session] = {}
        self._tokenizers: dict[str, PromptTokenizer] = {}

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> Embeddings:
        """Tokenize and encode B prompts."""

    def encode_negative(self, prompt: str, embeddings: Embeddings) -> Embeddings:
        """What guidance moves away from: ``prompt`` encoded, once.

        Where the manifest says so, an empty prompt is zeros in the shape of ``embeddings`` instead.
        """
        if prompt or not self.manifest.zeroes_empty_negative:
            return self.encode_text([prompt])
        pooled = embeddings.pooled_states
        return Embeddings(
            np.zeros_like(embeddings.text_states), None if pooled is None else np.zeros_like(pooled)
        )

    @abstractmethod
    def denoise(
        self,
        initial_latent: Float32Array,
        embeddings: Embeddings,
        *,
        negative: Embeddings | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        step_noise: StepNoise | None = None,
        observer: Observer | None = None,
    ) -> Float32Array:
        """Run the denoiser over the whole schedule.

        Args:
            initial_latent: [B, C, h, w] float32 of deviation 1, as diffusers' ``latents``.
            embeddings: of the B prompts.
            negative: of what to move away from; needed where the family guides with it.
            steps: denoiser calls; None takes the manifest's.
            guidance: guidance scale; None takes the manifest's.
            step_noise: fresh noise [B, C, h, w] for a step's index, for schedulers that take some.
            observer: called after each step.

        Returns:
            [B, C, h, w] float32.

        Raises:
            UsageError: the latent's size, steps or guidance are impossible for this bundle.
            TargetError: the denoiser fails, or gives NaN or infinity.
        """

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """Height and width are multiples of this, in pixels."""

    @property
    @abstractmethod
    def takes_negative_prompt(self) -> bool:
        """Whether ``denoise`` can use ``negative``."""

    @property
    @abstractmethod
    def takes_guidance(self) -> bool:
        """Whether a guidance scale changes anything."""

    def wants_negative(self, guidance: float) -> bool:
        """Whether a run with this guidance scale needs ``negative``, as diffusers decides it."""
        return self.takes_negative_prompt and guidance > 1.0

    def decode(self, latent: Float32Array) -> Float32Array:
        """The picture of a latent.

        Args:
            latent: [B, C, h, w] float32, as ``denoise`` returns it.

        Returns:
            [B, 3, H, W] float32, about -1…1, not clipped.
        """
        space = self.manifest.latent
        unscaled = latent / np.float32(space.scaling_factor) + np.float32(space.shift_factor)
        outputs = self.run(Component.VAE_DECODER, {"latent": unscaled})
        return output_named(Component.VAE_DECODER, outputs, "image")

    def run(self, component: Component, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run ``component`` once, opening it first if need be."""
        return self.session(component).run(inputs)

    def session(self, component: Component) -> Session:
        """The open session of ``component``; with ``low_memory`` all others are closed first."""
        if component not in self._sessions:
            if self._low_memory:
                self.close()
            self._sessions[component] = self._open_session(component)
        return self._sessions[component]

    def close(self) -> None:
        """Close all sessions; the next run opens them again."""
        while self._sessions:
            self._sessions.popitem()[1].close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tokenizer(self, name: str) -> PromptTokenizer:
        if name not in self._tokenizers:
            self._tokenizers[name] = self._open_tokenizer(name)
        return self._tokenizers[name]

    def _check_latent(self, latent: Float32Array) -> None:
        """Raise UsageError unless ``latent`` is one of this bundle's latent space and a whole picture."""
        space = self.manifest.latent
        multiple = self.size_multiple // space.downscale
        if latent.ndim != 4 or latent.shape[1] != space.channels:
            raise UsageError(
                "latent",
                f"has shape {list(latent.shape)}, wanted [B, {space.channels}, h, w]",
                "check its source",
            )
        if latent.shape[2] % multiple or latent.shape[3] % multiple:
            raise UsageError(
                "latent",
                f"is {latent.shape[2]}×{latent.shape[3]}, wanted multiples of {multiple}",
                f"choose --height and --width that are multiples of {self.size_multiple}",
            )

    def _schedule(self, steps: int | None, image_tokens: int | None = None) -> Scheduler:
        chosen = self.manifest.sampling.steps if steps is None else steps
        return scheduler_from_entry(self.manifest.scheduler, chosen, image_tokens)

    def _noise(self, scheduler: Scheduler, step_noise: StepNoise | None, index: int) -> Float32Array | None:
        """Fresh noise for step ``index`` where the schedule takes some: at all steps but the last."""
        if not scheduler.takes_noise or index == len(scheduler.timesteps) - 1:
            return None
        if step_noise is None:
            raise UsageError(
                "step_noise",
                f"{self.manifest.scheduler.name} takes fresh noise at every step, and none was given",
                "pass step_noise",
            )
        return step_noise(index)


def check_prediction(component: Component, index: int, prediction: Float32Array) -> Float32Array:
    """``prediction`` itself; raises TargetError for NaN or infinity, which no later step can mend."""
    if not bool(np.isfinite(prediction).all()):
        raise TargetError(
            f"{component}",
            f"gives NaN or infinity at step {index}",
            "keep more of it in float16 or float32: see 'latentc passes'",
        )
    return prediction


def output_named(component: Component, outputs: dict[str, Array], name: str) -> Array:
    """The output ``name``; raises BundleError when the graph has none of that name."""
    if name not in outputs:
        raise BundleError(
            f"{component}",
            f"has the outputs {', '.join(sorted(outputs))}, wanted {name}",
            "build the bundle again",
        )
    return outputs[name]
