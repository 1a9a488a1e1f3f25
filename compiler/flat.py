"""Flat modules: one component of a pipeline as a function of plain tensors, on the meta device.

A flat module takes and gives exactly the tensors of its ComponentSpec, in that order, and holds the diffusers
or transformers module under ``original``, so a weight's name is that module's own after the prefix.
Only torch code lives here; import this file inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from latentc.compiler.exportable_parts import make_exportable
from latentc.errors import ModelError, nearest
from latentc.recipes.families.catalogue import FAMILIES
from latentc.recipes.family import ComponentSpec, Library, TensorSpec, size_of

if TYPE_CHECKING:
    from latentc.recipes.config import Config
    from latentc.runtime.manifest import Json

PREFIX = "original."
"""What stands before a weight's own name in a flat module."""

_EXAMPLE_SIZES = {"B": 2, "T": 7, "S": 12}
_EXAMPLE_STEPS = {"h": 4, "w": 6, "H": 4, "W": 6}
"""How often a component's step goes into the height and width of its example."""


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
        arguments: dict[str, Any] = dict(self._fixed)
        for spec, tensor in zip(self.inputs, tensors, strict=True):
            _put(arguments, spec.place, tensor)
        call = getattr(self.original, self._method) if self._method else self.original
        result = call(**arguments)
        outputs = tuple(_found(result, spec.place) for spec in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs


def _put(arguments: dict[str, Any], place: str, tensor: torch.Tensor) -> None:
    """Put ``tensor`` at ``place``: dots between the keys of dictionaries."""
    *outer, last = place.split(".")
    for key in outer:
        arguments = arguments.setdefault(key, {})
    arguments[last] = tensor


def _found(result: Any, place: str) -> torch.Tensor:  # noqa: ANN401 # whatever the library returns
    """What lies at ``place``: dots between attributes and numbers."""
    for part in place.split("."):
        result = result[int(part)] if part.lstrip("-").isdigit() else getattr(result, part)
    tensor: torch.Tensor = result
    return tensor


@dataclass(frozen=True)
class FlatComponent:
    """A flat module with what is needed to trace it.

    Args:
        module: in evaluation mode; takes ``*tensors``.
        inputs: the tensors it takes, in order.
        outputs: the tensors it gives, in order.
        examples: one small tensor an input; every dynamic axis has its own size of 2 or more.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    examples: tuple[torch.Tensor, ...]


def config_of(module: nn.Module) -> Config:
    """The config that ``module`` was made of, with its class's defaults."""
    original: Any = module
    config: Config = original.config if isinstance(original.config, Mapping) else original.config.to_dict()
    return config


def module_on_meta(class_name: str, config: Mapping[str, Json]) -> nn.Module:
    """Make the module from its architecture alone: weights without storage, buffers with their values.

    Raises:
        ModelError: the class is not one that latentc exports, or refuses the config.
    """
    libraries = {spec.class_name: spec.library for family in FAMILIES for spec in family.components}
    if class_name not in libraries:
        raise ModelError(class_name, "is no class that latentc exports", nearest(class_name, libraries))
    library = libraries[class_name]
    with torch.device("meta"):
        module = _module(class_name, library, config)
    if any(True for _ in module.buffers()):
        # Buffers (position ids) are computed, not stored in the checkpoint: they need their values. Only
        # text encoders have some; making their weights for real and dropping them at once is affordable.
        from accelerate import init_empty_weights  # type: ignore[import-untyped] # ships no types

        with init_empty_weights(include_buffers=False):
            module = _module(class_name, library, config)
    return module.eval().requires_grad_(False)


def _module(class_name: str, library: Library, config: Mapping[str, Json]) -> nn.Module:
    import diffusers
    import transformers

    values = dict(config)
    try:
        if library is Library.DIFFUSERS:
            model: nn.Module = getattr(diffusers, class_name).from_config(values)
            return model
        model_class = getattr(transformers, class_name)
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
    make_exportable(module)
    flat = FlatModule(module, spec)
    sizes = {axis: size_of(size, config) for axis, size in spec.sizes}
    step = sizes.pop("step", 1)
    sizes |= _EXAMPLE_SIZES | {axis: times * step for axis, times in _EXAMPLE_STEPS.items()}
    examples = tuple(
        torch.zeros([sizes[axis] for axis in tensor.axes], dtype=getattr(torch, tensor.dtype))
        for tensor in flat.inputs
    )
    return FlatComponent(flat.eval(), flat.inputs, flat.outputs, examples)


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
