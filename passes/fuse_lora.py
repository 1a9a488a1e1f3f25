"""Fuse-lora: add a LoRA's updates to the weights they were trained for.

    before   y = MatMul(x, w)                                      w: float32[K, N]
    after    y = MatMul(x, w)       w + scale · (alpha / R) · (up @ down) transposed

Kernels of convolutions as well. The sum is made in float32 when the weight is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from latentc.errors import ModelError, PassError
from latentc.passes.base import Change, Pass, PassContext, PassResult, Refusal
from latentc.passes.int4_layers import require_canonical_linears
from latentc.passes.lora_file import COMPONENTS, Adapter, modules_text, read_lora
from latentc.passes.options import limits
from latentc.passes.weights import (
    SPLIT_RANK,
    Array,
    Floats,
    find_convolutions,
    find_linears,
    lazy,
    name_of,
    replace_initializer,
    shape_of,
)

FUSED = "latentc.fused"
"""Graph metadata: the LoRAs that are fused already, one a line, so that none is fused twice."""


@dataclass(frozen=True)
class _Layer:
    weight: ir.Value
    shape: tuple[int, ...]
    is_linear: bool


@dataclass(frozen=True)
class FuseLora(Pass):
    """Fuse a LoRA file into linears and convolutions."""

    name: ClassVar[str] = "fuse-lora"
    version: ClassVar[int] = 1
    preserves: ClassVar[bool] = False

    path: Path = field(metadata=limits(None, None, "a safetensors file, or a folder with one"))
    scale: float = field(default=1.0, metadata=limits(-100.0, 100.0, "strength; 1 is as trained"))
    component: str = field(
        default="", metadata=limits(None, None, "the component that the graph is; guessed when left out")
    )

    def requires(self, model: ir.Model) -> None:
        """Linears are MatMul with [K, N] constants that nothing has split or quantized yet."""
        if self.component and self.component not in COMPONENTS:
            raise PassError(
                f"{self.name}.component",
                f"there is no component '{self.component}'",
                f"choose one of: {', '.join(COMPONENTS)}",
            )
        require_canonical_linears(self.name, model)
        for node in model.graph:
            if SPLIT_RANK in node.metadata_props or node.op_type == "DequantizeLinear":
                raise PassError(
                    self.name,
                    f"'{name_of(node.outputs[0])}' is split or quantized already",
                    "put fuse-lora before split-low-rank and the quantizing passes",
                )

    def apply(self, model: ir.Model, context: PassContext) -> PassResult:
        """Add every adapter of this component to its weight."""
        mark = f"{self.path} at {self.scale!r}"
        fused = model.graph.metadata_props.get(FUSED, "").splitlines()
        if mark in fused:
            return PassResult(model, (), (Refusal(str(self.path), "is fused already"),))
        layers = _layers(model.graph)
        adapters, others = self._own(read_lora(self.path), layers)
        if not adapters and self.optional:
            return PassResult(model, (), (Refusal(str(self.path), f"has nothing for {self.component}"),))
        self._require_all_placed(adapters, others, layers)
        for adapter in adapters:
            _fuse(model.graph, self.path, adapter, layers[_place(adapter, layers)], self.scale)
        model.graph.metadata_props[FUSED] = "\n".join([*fused, mark])
        changes = tuple(
            Change(
                _place(adapter, layers),
                f"rank {adapter.down.shape[0]} added, {self.scale * adapter.scale:g} times",
            )
            for adapter in adapters
        )
        return PassResult(model, changes)

    def _own(
        self, adapters: tuple[Adapter, ...], layers: dict[str, _Layer]
    ) -> tuple[tuple[Adapter, ...], tuple[Adapter, ...]]:
        """The adapters meant for this component, and the rest."""
        component = self.component or _guessed(adapters, layers)
        own = tuple(adapter for adapter in adapters if adapter.component in (component, ""))
        return own, tuple(adapter for adapter in adapters if adapter not in own)

    def _require_all_placed(
        self, adapters: tuple[Adapter, ...], others: tuple[Adapter, ...], layers: dict[str, _Layer]
    ) -> None:
        lost = tuple(adapter for adapter in adapters if not _place(adapter, layers))
        if adapters and not lost:
            return
        fix = "use a LoRA that was trained for this model"
        if adapters and len(lost) < len(adapters):
            raise ModelError(
                str(self.path),
                f"{len(lost)} of {len(adapters)} modules are not here: {modules_text(lost)}",
                fix,
            )
        key = (lost or others)[0]
        close = get_close_matches(f"{key.module}.weight", layers, n=1, cutoff=0.0)
        seen = f"; the nearest weight is '{close[0]}'" if close else "; the graph has no linears"
        raise ModelError(str(self.path), f"matches no layer: it holds '{key.key}'{seen}", fix)


def _layers(graph: ir.Graph) -> dict[str, _Layer]:
    layers = {linear.name: _Layer(linear.weight, linear.shape, True) for linear in find_linears(graph)}
    for convolution in find_convolutions(graph):
        layers[convolution.name] = _Layer(convolution.weight, convolution.shape, False)
    return layers


def _guessed(adapters: tuple[Adapter, ...], layers: dict[str, _Layer]) -> str:
    """The component with the most modules in this graph; the first in the file when none has any."""
    names = [name for name in ("", *COMPONENTS) if any(adapter.component == name for adapter in adapters)]
    counts = [
        sum(bool(_place(adapter, layers)) for adapter in adapters if adapter.component == name)
        for name in names
    ]
    return names[int(np.argmax(counts))]


def _place(adapter: Adapter, layers: dict[str, _Layer]) -> str:
    """The name of the weight that ``adapter`` is for; empty when this graph has none."""
    # transformers 5 has no `text_model` level any more, which older files name.
    for module in (adapter.module, adapter.module.removeprefix("text_model.")):
        if f"{module}.weight" in layers:
            return f"{module}.weight"
    if adapter.is_flat:
        wanted = adapter.module.removeprefix("text_model_")
        for name in layers:
            if name.removesuffix(".weight").removeprefix("text_model.").replace(".", "_") == wanted:
                return name
    return ""


def _fuse(graph: ir.Graph, path: Path, adapter: Adapter, layer: _Layer, scale: float) -> None:
    tensor = layer.weight.const_value
    if tensor is None:
        raise AssertionError("a layer has a weight")
    seen = (adapter.up.shape[0], *adapter.down.shape[1:])
    wanted = layer.shape[::-1] if layer.is_linear else layer.shape
    if _without_ones(seen) != _without_ones(wanted) or set(adapter.up.shape[2:]) - {1}:
        raise ModelError(
            f"{path}: {adapter.key}",
            f"gives an update of shape {list(seen)}, '{layer.weight.name}' wants {list(wanted)}",
            "use a LoRA that was trained for this model",
        )

    def program(values: Array) -> Array:
        delta = _delta(adapter)
        turned = delta.T if layer.is_linear else delta.reshape(layer.shape)
        return values.astype(np.float32) + np.float32(scale * adapter.scale) * turned

    fused = lazy(tensor, program, shape_of(tensor), ir.DataType.FLOAT, 3 * tensor.nbytes)
    replace_initializer(graph, graph.initializers[layer.weight.name or ""], fused)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` less the ones at its end: a linear and a 1×1 kernel are the same update."""
    kept = len(shape)
    while kept and shape[kept - 1] == 1:
        kept -= 1
    return shape[:kept]


def _delta(adapter: Adapter) -> Floats:
    """The update before scaling, [N, K]; a kernel's positions are flattened into K."""
    rank = adapter.down.shape[0]
    up = adapter.up.reshape(adapter.up.shape[0], rank)
    return np.asarray(up @ adapter.down.reshape(rank, -1))
