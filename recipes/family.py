"""Family: what a kind of pipeline is made of, as data. Each family is one file in recipes/families/.

Axis letters are those of the whole project: B batch, C latent channels, H W pixels, h w latent
pixels, T text tokens, S image tokens (packed latents), D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from latentc.errors import ModelError, nearest
from latentc.recipes.choice import Choice
from latentc.recipes.config import Config, number

Size: TypeAlias = "int | str | Callable[[Config], int]"
"""A whole number: as it is, at a key of the component's config, or computed from the config."""


def size_of(size: Size, config: Config) -> int:
    """The number that ``size`` means; raises ModelError when the config does not have it."""
    if isinstance(size, int):
        return size
    return number(config, size) if isinstance(size, str) else size(config)


def axis_size(axis: str, sizes: Mapping[str, int]) -> int | None:
    """The size of ``axis``, a letter of ``sizes`` or part of one (``h/2``); None for any other."""
    letter, _, share = axis.partition("/")
    if letter not in sizes or not (share.isdigit() or not share):
        return None
    return sizes[letter] // int(share or 1)


class Component(Choice):
    """A part of a pipeline that becomes one graph; the value is its folder in a bundle."""

    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
    TEXT_ENCODER_3 = "text_encoder_3"
    CONTROLNET = "controlnet"
    UNET = "unet"
    TRANSFORMER = "transformer"
    VAE_ENCODER = "vae_encoder"
    VAE_DECODER = "vae_decoder"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a component.

    Args:
        name: in the graph, and for whoever runs it.
        dtype: numpy's name.
        axes: one a dimension. A dynamic one is a letter, or part of one (``h/2``); one that ends in ``*`` is
            fixed for a checkpoint, with a size from the component's config (ComponentSpec.sizes).
        place: of an input: which argument of the module it is, and with dots where in it, by key or number
            (``added_cond_kwargs.time_ids``). Of an output: where it lies in what the module returns, with
            dots between attributes and numbers (``hidden_states.-2``), and ``+`` between tensors that stand
            side by side on the last axis.
        needs: a key of the config; where it is null or false there is no such tensor.
    """

    name: str
    dtype: str
    axes: tuple[str, ...]
    place: str
    needs: str = ""

    def exists(self, config: Config) -> bool:
        """Whether a component with ``config`` has this tensor."""
        return not self.needs or config.get(self.needs) not in (None, False)


@dataclass(frozen=True)
class LeftAlone:
    """Linears that stay as they are unless a recipe says which to skip.

    Args:
        pattern: glob of the weights' names.
        why: in words, for the report.
    """

    pattern: str
    why: str


@dataclass(frozen=True)
class ComponentSpec:
    """One component: where its weights lie in a diffusers folder, how it is called, what it takes and gives.

    Args:
        component: which part.
        folder: of the diffusers pipeline.
        class_name: of the module, in diffusers or transformers.
        inputs: in order; some checkpoints lack some (``inputs_of``).
        outputs: in order.
        sizes: of axes that end in ``*``, of ``step``, what h and w are multiples of, and of ``pixel_step``,
            what H and W are.
        method: of the module, or part of it (with dots), when it is not called itself.
        fixed: arguments that are always given, by place.
        more_inputs: those whose number depends on the config.
        more_outputs: likewise.
        absent: keys of the config that have to be null: with them the module asks for inputs that the family
            does not have.
        tokenizer: folder of the tokenizer whose padded length is T.
        longest_text: the most tokens that its pipeline gives it, where the tokenizer itself names no limit.
        shared: groups of linears that read the same input, each by the ends of their names: those with the
            same beginning share it. A name that begins with ``*`` is a glob, and all that match share one.
        left_alone: linears that are not quantized by default.
    """

    component: Component
    folder: str
    class_name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sizes: tuple[tuple[str, Size], ...] = ()
    method: str = ""
    fixed: tuple[tuple[str, bool | int], ...] = ()
    more_inputs: Callable[[Config], tuple[TensorSpec, ...]] | None = None
    more_outputs: Callable[[Config], tuple[TensorSpec, ...]] | None = None
    absent: tuple[str, ...] = ()
    tokenizer: str = ""
    longest_text: int = 0
    shared: tuple[tuple[str, ...], ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()

    def inputs_of(self, config: Config) -> tuple[TensorSpec, ...]:
        """The inputs of a checkpoint with ``config``."""
        more = self.more_inputs(config) if self.more_inputs is not None else ()
        return (*(tensor for tensor in self.inputs if tensor.exists(config)), *more)

    def outputs_of(self, config: Config) -> tuple[TensorSpec, ...]:
        """The outputs of a checkpoint with ``config``."""
        more = self.more_outputs(config) if self.more_outputs is not None else ()
        return (*(tensor for tensor in self.outputs if tensor.exists(config)), *more)

    def why_left_alone(self, weight: str) -> str:
        """Why the linear with ``weight`` is not quantized by default; empty when it is."""
        return next((one.why for one in self.left_alone if fnmatchcase(weight, one.pattern)), "")

    def tensor(self, name: str) -> TensorSpec | None:
        """The input or output called ``name``, if any checkpoint of the family has one."""
        return next((tensor for tensor in (*self.inputs, *self.outputs) if tensor.name == name), None)


@dataclass(frozen=True)
class Family:
    """A kind of pipeline.

    Args:
        name: as in manifests and reports.
        pipeline_class: diffusers' class.
        denoiser: which component is called in every step.
        components: every one that becomes a graph.
        doubles_batch: with guidance the denoiser sees the negative prompt in the same batch.
        patch: latent pixels along each side of an image token, where the denoiser takes tokens (axis S).
        also: other pipeline classes of diffusers with the same components.
        unloaded: parts of the pipeline that the original is loaded without.
        zeroes_empty_negative: where no negative prompt is given, guidance moves away from zeros, unless
            ``force_zeros_for_empty_prompt`` of model_index.json is false.
        is_drawn: latentc can draw with it (compiler/original.py, runtime/generate.py). Components of other
            families are exported and compiled, but nothing judges them together.
    """

    name: str
    pipeline_class: str
    denoiser: Component
    components: tuple[ComponentSpec, ...]
    doubles_batch: bool = False
    patch: int = 1
    also: tuple[str, ...] = ()
    unloaded: tuple[str, ...] = ()
    zeroes_empty_negative: bool = False
    is_drawn: bool = True

    def spec(self, component: Component) -> ComponentSpec:
        """The spec of ``component``; raises ModelError when this family has none."""
        for spec in self.components:
            if spec.component is component:
                return spec
        offered = [str(spec.component) for spec in self.components]
        raise ModelError(self.name, f"has no component '{component}'", nearest(str(component), offered))

    @property
    def text_encoders(self) -> tuple[ComponentSpec, ...]:
        """Those components that read token ids."""
        return tuple(spec for spec in self.components if spec.tensor("token_ids") is not None)
