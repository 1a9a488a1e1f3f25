"""Flat modules: one component of a pipeline as a function of plain tensors, on the meta device.

A flat module takes and gives exactly the tensors of its ComponentSpec, in that order, and holds the diffusers
or transformers module under ``original``, so a weight's name is that module's own after the prefix.
Only torch code lives here; import this file inside functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from latentc.compiler.exportable_parts import make_exportable
from latentc.errors import ModelError
from latentc.recipes.family import ComponentSpec, TensorSpec, axis_size, size_of

if TYPE_CHECKING:
    from latentc.recipes.config import Config
    from latentc.runtime.manifest import Json

PREFIX = "original."
"""What stands before a weight's own name in a flat module."""

_EXAMPLE_TIMES = {"B": 2, "T": 7, "S": 12, "h": 4, "w": 6, "H": 4, "W": 6}
"""How often an axis's step goes into its size in the example."""
_STEPS = {"h": "step", "w": "step", "H": "pixel_step", "W": "pixel_step"}
"""Where a spec says what an axis is a multiple of; others are of 1."""


class FlatModule(nn.Module):
    """Takes tensors in the spec's order, and calls ``original`` with them and the spec's fixed arguments.

    Args:
        original: the module.
        spec: how it is called.
    """

    def __init__(self, original: nn.Module, spec: ComponentSpec) -> None:
        super().__init__()
        self.original = original
        self.inputs = spec.inputs_of(config_of(original))
        self.outputs = spec.outputs_of(config_of(original))
        self._method = spec.method
        self._fixed = spec.fixed

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run the component; one output comes as it is, several as a tuple."""
        _check_masks(self.inputs, tensors)
        arguments: dict[str, Any] = dict(self._fixed)
        for spec, tensor in zip(self.inputs, tensors, strict=True):
            _put(arguments, spec.place, tensor)
        call = _attribute(self.original, self._method) if self._method else self.original
        result = call(**{name: _tuples(value) for name, value in arguments.items()})
        outputs = tuple(_found(result, spec.place) for spec in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs


def _check_masks(specs: Sequence[TensorSpec], tensors: Sequence[torch.Tensor]) -> None:
    """Tell the tracer that a mask is as long as what it masks; it sees them meet too late."""
    check: Any = torch._check  # ships no types
    sizes: dict[str, int] = {}
    for spec, tensor in zip(specs, tensors, strict=True):
        for axis, size in zip(spec.axes, tensor.shape, strict=True):
            sizes.setdefault(axis, size)
    for spec, tensor in zip(specs, tensors, strict=True):
        if spec.name.endswith("_mask"):
            for axis, size in zip(spec.axes, tensor.shape, strict=True):
                check(sizes[axis] == size)


def _put(arguments: dict[str, Any], place: str, tensor: torch.Tensor) -> None:
    """Put ``tensor`` at ``place``: dots between the keys of dictionaries."""
    *outer, last = place.split(".")
    for key in outer:
        arguments = arguments.setdefault(key, {})
    arguments[last] = tensor


def _tuples(value: Any) -> Any:  # noqa: ANN401 # arguments of any module
    """A dictionary whose keys count from 0 as the tuple that it means."""
    if isinstance(value, dict) and all(key.isdigit() for key in value):
        return tuple(value[str(index)] for index in range(len(value)))
    return value


def _found(result: Any, place: str) -> torch.Tensor:  # noqa: ANN401 # whatever the library returns
    """What lies at ``place``; where it names several, they stand side by side on the last axis."""
    tensors = [_attribute(result, one) for one in place.split("+")]
    return torch.cat(tensors, dim=-1) if len(tensors) > 1 else tensors[0]


def _attribute(value: Any, path: str) -> Any:  # noqa: ANN401 # of whatever the library returns
    for part in path.split("."):
        value = value[int(part)] if part.lstrip("-").isdigit() else getattr(value, part)
    return value


@dataclass(frozen=True)
class FlatComponent:
    """A flat module with what is needed to trace it.

    Args:
        module: in evaluation mode; takes ``*tensors``.
        inputs: the tensors it takes, in order.
        outputs: the tensors it gives, in order.
        examples: one small tensor an input; every dynamic axis has its own size of 2 or more.
        steps: what each dynamic axis is a multiple of; without any, only symbols can trace it.
        numbers: whole numbers of the architecture: sizes of its weights and of fixed axes, and what its
            config holds.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    examples: tuple[torch.Tensor, ...]
    steps: Mapping[str, int] = field(default_factory=dict)
    numbers: frozenset[int] = frozenset()

    def sized(self, sizes: Mapping[str, int]) -> FlatComponent:
        """The same with examples of other sizes, by axis."""
        examples = tuple(
            torch.zeros(
                [axis_size(axis, sizes) or size for axis, size in zip(spec.axes, one.shape, strict=True)],
                dtype=one.dtype,
                device=one.device,
            )
            for spec, one in zip(self.inputs, self.examples, strict=True)
        )
        return replace(self, examples=examples)


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int):
        yield int(value)


def config_of(module: nn.Module) -> Config:
    """The config that ``module`` was made of, with its class's defaults."""
    original: Any = module
    config: Config = original.config if isinstance(original.config, Mapping) else original.config.to_dict()
    return config


def module_on_meta(class_name: str, config: Mapping[str, Json]) -> nn.Module:
    """Make the module from its architecture alone: weights without storage, buffers with their values.

    Raises:
        ModelError: neither diffusers nor transformers has such a class of models, or it refuses the config.
    """
    module = module_without_values(class_name, config)
    if any(True for _ in module.buffers()):
        # Buffers (position ids) are computed, not stored in the checkpoint: they need their values. Only
        # text encoders have some; making their weights for real and dropping them at once is affordable.
        from accelerate import init_empty_weights  # type: ignore[import-untyped] # ships no types

        with init_empty_weights(include_buffers=False):
            module = _module(class_name, config)
    return module.eval().requires_grad_(False)


def module_without_values(class_name: str, config: Mapping[str, Json]) -> nn.Module:
    """Make the module with weights and buffers that have shapes alone: enough to say what it computes.

    Raises:
        ModelError: as module_on_meta.
    """
    with torch.device("meta"):
        return _module(class_name, config).eval().requires_grad_(False)


def _module(class_name: str, config: Mapping[str, Json]) -> nn.Module:
    import diffusers
    import transformers

    values = dict(config)
    is_diffusers = hasattr(diffusers, class_name)
    found = getattr(diffusers if is_diffusers else transformers, class_name, None)
    kind = diffusers.ModelMixin if is_diffusers else transformers.PreTrainedModel
    # a class that is no model is never made, whatever a folder's json names
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ModelError(
            class_name, "is no model of diffusers or transformers", "use a model that diffusers can load"
        )
    model_class: Any = found
    try:
        if is_diffusers:
            model: nn.Module = model_class.from_config(values)
            return model
        typed = model_class.config_class.from_dict(values)
        # Eager attention is plain matrix products and a softmax, with the mask added in the open.
        typed._attn_implementation = "eager"
        encoder: nn.Module = model_class(typed)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{class_name}: config.json",
            f"the class refuses it: {error}",
            "compare it with the config of a model that diffusers loads",
        ) from error
    return encoder


def flat_component(spec: ComponentSpec, module: nn.Module) -> FlatComponent:
    """Wrap ``module`` so that it takes and gives the tensors of ``spec``.

    Args:
        spec: of a family.
        module: of the spec's class; parts of it that ONNX cannot say are replaced.

    Raises:
        ModelError: the module asks for inputs that the family does not have.
    """
    config = config_of(module)
    refuse_extras(spec, config)
    flat = FlatModule(make_exportable(module), spec)
    sizes = {axis: size_of(size, config) for axis, size in spec.sizes}
    letters = dict.fromkeys(
        axis.partition("/")[0] for tensor in flat.inputs for axis in tensor.axes if not axis.endswith("*")
    )
    steps = {letter: sizes.get(_STEPS.get(letter, ""), 1) for letter in letters}
    sizes |= {letter: step * _EXAMPLE_TIMES.get(letter, 1) for letter, step in steps.items()}
    examples = tuple(_example(tensor, sizes) for tensor in flat.inputs)
    stored = (*module.parameters(), *module.buffers())
    fixed = [
        size
        for tensor, example in zip(flat.inputs, examples, strict=True)
        for axis, size in zip(tensor.axes, example.shape, strict=True)
        if axis.endswith("*")
    ]
    numbers = frozenset(_numbers([config, fixed, [list(tensor.shape) for tensor in stored]]))
    return FlatComponent(flat.eval(), flat.inputs, flat.outputs, examples, steps, numbers)


def _example(tensor: TensorSpec, sizes: Mapping[str, int]) -> torch.Tensor:
    shape = [axis_size(axis, sizes) or int(axis.rstrip("*")) for axis in tensor.axes]
    return torch.zeros(shape, dtype=getattr(torch, tensor.dtype))


def refuse_extras(spec: ComponentSpec, config: Config) -> None:
    """Raise ModelError for a component that takes more than ``spec`` has."""
    for key in spec.absent:
        if config.get(key) is not None:
            raise ModelError(
                f"{spec.folder}/config.json",
                f"{key} is '{config[key]}', which asks for inputs that this family does not have",
                "use a checkpoint of the family that model_index.json names",
            )


def on_meta(flat: FlatComponent) -> tuple[FlatComponent, dict[str, torch.Tensor]]:
    """Move everything to the meta device and keep the buffers' values.

    Returns:
        The component without any storage, and the values of the buffers that no checkpoint holds, by their
        names in the flat module.
    """
    stored = flat.module.state_dict().keys()  # a buffer in the checkpoint is a weight like any other
    values = {name: one.clone() for name, one in flat.module.named_buffers() if name not in stored}
    module = flat.module.to("meta")
    examples = tuple(example.to("meta") for example in flat.examples)
    return replace(flat, module=module, examples=examples), values
