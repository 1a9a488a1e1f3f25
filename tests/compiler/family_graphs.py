"""Graphs of families: what a published model's component becomes, and whether it computes what torch does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch
from tests.made_models import values_of
from torch import nn

from latentc.compiler.export_graph import graph_of
from latentc.compiler.flat import FlatModule, config_of, flat_component, module_on_meta
from latentc.passes.base import PassContext
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.int4_layers import int4_linears
from latentc.passes.sequence import run_passes
from latentc.passes.weights import find_linears
from latentc.recipes.config import Config
from latentc.recipes.family import ComponentSpec, TensorSpec, axis_size, size_of
from latentc.recipes.published.catalogue import PUBLISHED, PublishedModel

Values = dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Case:
    """A component of a published model."""

    model: PublishedModel
    spec: ComponentSpec

    @property
    def part(self) -> str:
        return dict(self.model.parts)[self.spec.folder]

    def __str__(self) -> str:
        return f"{self.model.name}-{self.spec.component}"


def distinct_cases() -> tuple[Case, ...]:
    """Every component of the published models once, whatever models share it."""
    cases: dict[tuple[object, ...], Case] = {}
    for model in PUBLISHED:
        for spec in model.family.components:
            case = Case(model, spec)
            cases.setdefault((case.part, spec.class_name, spec.inputs, spec.outputs, spec.more_inputs), case)
    return tuple(cases.values())


def traced(spec: ComponentSpec, config: Config) -> ir.Model:
    """The graph of a component with ``config``; its weights are inputs."""
    module = module_on_meta(spec.class_name, json.loads(json.dumps(config)))
    return graph_of(flat_component(spec, module), str(spec.component))


def with_random_weights(spec: ComponentSpec, config: Config) -> nn.Module:
    """The library's own module with the values of tests.made_models."""
    module = module_on_meta(spec.class_name, json.loads(json.dumps(config)))
    fresh = {
        name: torch.cat(list(values_of(name, tuple(tensor.shape), 0))).reshape(tensor.shape)
        for name, tensor in module.state_dict().items()
    }
    module.load_state_dict(fresh, assign=True)
    positions: Any = getattr(module, "pos_embed", None)
    if type(positions).__name__ == "QwenEmbedRope":
        # its tables are neither weights nor buffers, and were left on the meta device
        module.pos_embed = type(positions)(positions.theta, positions.axes_dim, positions.scale_rope)
    return module.eval().requires_grad_(False)


def inputs_of(spec: ComponentSpec, config: Config, B: int, T: int, steps: tuple[int, int]) -> Values:
    """Random inputs; ``steps`` is the height and width in steps of the component."""
    random = np.random.default_rng(B)
    fixed = {axis: size_of(size, config) for axis, size in spec.sizes}
    step, pixel_step = fixed.get("step", 1), fixed.get("pixel_step", 1)
    sizes = {**fixed, "B": B, "T": T, "S": 10 + B, "h": steps[0] * step, "w": steps[1] * step}
    sizes |= {"H": steps[0] * pixel_step, "W": steps[1] * pixel_step}
    inputs: Values = {}
    for tensor in spec.inputs_of(config):
        shape = [axis_size(axis, sizes) or int(axis.rstrip("*")) for axis in tensor.axes]
        inputs[tensor.name] = _values(tensor, shape, random).astype(tensor.dtype)
    if spec.class_name == "QwenImageTransformer2DModel":
        inputs |= _column_of_patches(sizes["S"], T)
    return inputs


def _column_of_patches(S: int, T: int) -> Values:
    """Where Qwen-Image puts the tokens of a picture S patches high and one wide, and those of its text."""
    rows = np.arange(S) - (S - S // 2)
    image = np.stack([np.zeros(S), rows, np.full(S, -1)], axis=-1)
    text = np.repeat(np.arange(T)[:, None] + S // 2, 3, axis=1)
    return {"image_ids": image.astype(np.float32), "text_ids": text.astype(np.float32)}


def _values(tensor: TensorSpec, shape: list[int], random: np.random.Generator) -> npt.NDArray[np.float64]:
    if tensor.name == "token_ids":
        return random.integers(3, 90, shape).astype(np.float64)
    if tensor.name.endswith("_mask"):
        mask = np.ones(shape)
        mask[-1, shape[1] * 3 // 4 :] = 0
        return mask
    if tensor.name.endswith("_ids"):
        return random.integers(0, 60, shape).astype(np.float64)
    return random.random(shape) if tensor.name == "timestep" else random.standard_normal(shape)


def largest_error(spec: ComponentSpec, config: Config, folder: Path) -> float:
    """The largest error of onnxruntime against the library's module, over the largest value of its outputs.

    Two batch sizes, text lengths and picture sizes; the graph also passes the checker.
    """
    import onnxruntime

    # Z-Image takes multiples of 32 tokens; its own module pads to them and has another form
    lengths = (32, 64) if spec.class_name == "ZImageTransformer2DModel" else (9, 12)
    module = with_random_weights(spec, config)
    flat = FlatModule(module, spec)
    runs = [
        inputs_of(spec, config_of(module), B, T, steps)
        for B, T, steps in ((1, lengths[0], (4, 6)), (2, lengths[1], (6, 4)))
    ]
    with torch.no_grad():
        results = [[one.numpy() for one in expected_of(flat, module, inputs)] for inputs in runs]
    graph = traced(spec, config)
    bind_weights(graph, module, flat)
    path = folder / "model.onnx"
    ir.save(graph, path, external_data="model.onnx.data")
    del module, flat, graph  # of SDXL there is room for one only
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(path, options)
    errors = []
    for inputs, result in zip(runs, results, strict=True):
        for actual, expected in zip(session.run(None, inputs), result, strict=True):
            assert actual.shape == expected.shape
            errors.append(float(np.abs(actual - expected).max() / np.abs(expected).max()))
    return max(errors)


def bind_weights(model: ir.Model, module: nn.Module, flat: FlatModule) -> None:
    """Give the weights of a traced graph the values of ``module``."""
    weights = module.state_dict()
    given = {tensor.name for tensor in flat.inputs}
    for value in [value for value in model.graph.inputs if value.name not in given]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(weights[str(value.name)].numpy(), name=value.name)
        model.graph.register_initializer(value)


def expected_of(flat: FlatModule, module: nn.Module, inputs: Values) -> tuple[torch.Tensor, ...]:
    """What the library's own module gives."""
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    kind = type(module).__name__
    if kind == "ZImageTransformer2DModel":
        # a list of pictures and one of prompts, of which it pads the shorter ones
        prompts = [
            states[mask > 0]
            for states, mask in zip(tensors["text_states"], tensors["text_mask"], strict=True)
        ]
        pictures = list(tensors["latent"].unsqueeze(2))
        denoised = module(pictures, tensors["timestep"], prompts, return_dict=False)[0]
        return (torch.stack([one[:, 0] for one in denoised]),)
    if kind == "QwenImageTransformer2DModel":
        denoised = module(
            hidden_states=tensors["latent"],
            encoder_hidden_states=tensors["text_states"],
            encoder_hidden_states_mask=tensors["text_mask"],
            timestep=tensors["timestep"],
            img_shapes=[(1, tensors["latent"].shape[1], 1)],
            return_dict=False,
        )
        return (denoised[0],)
    result = flat(*tensors.values())
    return result if isinstance(result, tuple) else (result,)


@dataclass(frozen=True)
class Accounts:
    """What quantization to INT4 would do with each linear.

    Args:
        quantized: names.
        refused: names, with the reason.
        missing: matrices that are multiplied without being seen as linears.
    """

    quantized: tuple[str, ...]
    refused: Mapping[str, str]
    missing: tuple[str, ...]


def canonical(model: ir.Model, spec: ComponentSpec) -> tuple[ir.Model, set[str]]:
    """A traced graph in the passes' form, its weights all zeros; and the names of its matrices."""
    matrices = _with_idle_weights(model, spec)
    model, _ = run_passes(model, [Canonicalize(optional=True)], PassContext())
    return model, matrices


def accounts_of(model: ir.Model, matrices: set[str], spec: ComponentSpec) -> Accounts:
    """Go through all linears of a canonical graph."""
    linears = list(int4_linears(model.graph, 64, tuple(one.pattern for one in spec.left_alone)))
    seen = {linear.name for linear, _ in linears}
    return Accounts(
        tuple(linear.name for linear, refusal in linears if refusal is None),
        {linear.name: refusal.why for linear, refusal in linears if refusal is not None},
        tuple(sorted(matrices - seen)),
    )


def sharing(model: ir.Model, spec: ComponentSpec) -> tuple[list[list[str]], list[tuple[str, ...]]]:
    """Linears that share an input without ``spec`` saying so, and groups of it whose linears share none.

    Args:
        model: canonical.
        spec: of the component.
    """
    readers: dict[ir.Value, list[str]] = {}
    for linear in find_linears(model.graph):
        value = linear.nodes[0].inputs[0]
        assert value is not None
        readers.setdefault(value, []).append(linear.name.removesuffix(".weight"))
    shared = [names for names in readers.values() if len(names) > 1]
    undeclared = [names for names in shared if not any(_in_group(names, group) for group in spec.shared)]
    # not every checkpoint of a family has all of its blocks
    present = [
        group for group in spec.shared if any(_in_group([name], group) for name in chain(*readers.values()))
    ]
    idle = [group for group in present if not any(_in_group(names, group) for names in shared)]
    return undeclared, idle


def _in_group(names: list[str], group: tuple[str, ...]) -> bool:
    """Whether all ``names`` are of ``group``, those found by their ends with the same beginning."""
    beginnings = set()
    for name in names:
        found = next(
            (one for one in group if name == one or name.endswith(f".{one}") or fnmatchcase(name, one)), None
        )
        if found is None:
            return False
        if not found.startswith("*"):
            beginnings.add(name.removesuffix(found))
    return len(beginnings) <= 1


def _with_idle_weights(model: ir.Model, spec: ComponentSpec) -> set[str]:
    """Turn the weights of a traced graph into initializers without values; give names of those multiplied."""
    given = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
    graph = model.graph
    matrices = set()
    for value in [value for value in graph.inputs if value.name not in given and not _is_residual(value)]:
        graph.inputs.remove(value)
        assert value.shape is not None
        shape = value.shape.numpy()
        value.const_value = ir.LazyTensor(
            partial(_zeros, shape), ir.DataType.FLOAT, ir.Shape(shape), name=str(value.name)
        )
        graph.register_initializer(value)
        if len(value.shape) == 2 and any(
            node.op_type in ("MatMul", "Gemm", "Transpose") for node, _ in value.uses()
        ):
            matrices.add(str(value.name))
    return matrices


def _is_residual(value: ir.Value) -> bool:
    return str(value.name).startswith("residual_")


def _zeros(shape: tuple[int, ...]) -> ir.TensorProtocol:
    return ir.tensor(np.zeros(shape, np.float32))


def parameters_of(model: ir.Model, spec: ComponentSpec) -> int:
    """How many numbers the weights of a traced graph hold."""
    given = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
    shapes = [value.shape for value in model.graph.inputs if value.name not in given]
    fixed = [shape.numpy() for shape in shapes if shape is not None and shape.is_static()]
    return sum(math.prod(shape) for shape in fixed)
