"""Denoisers at their published widths with random weights, exported as a build exports them.

SD 1.5's UNet is whole; of FLUX.1-dev there is a slice, one double and two single blocks, since the rest
repeats them. Weights are drawn like an initialisation's: normal, by one over the square root of their fan-in.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from latentc.compiler.export_graph import graph_of
from latentc.compiler.flat import flat_component, module_on_meta
from latentc.passes.base import PassContext
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.model_file import write_model
from latentc.passes.weights import Array, Floats
from latentc.recipes.families.catalogue import family_named
from latentc.recipes.family import Component
from latentc.runtime.manifest import Json

_TOKENS, _TEXT = 1024, 256


@dataclass(frozen=True)
class Denoiser:
    """A denoiser to time: what it is, the config of its module, and the sizes of its dynamic axes."""

    name: str
    family: str
    component: Component
    class_name: str
    config: dict[str, Json]
    kept: tuple[str, ...]
    """Weights that stay floats: the first and the last layer."""

    def inputs(self, seed: int) -> dict[str, Array]:
        """What one step reads: a picture of 512 by 512 pixels and its text."""
        draw = np.random.default_rng(seed).standard_normal
        if self.component is Component.UNET:
            return {
                "latent": draw((1, 4, 64, 64), dtype=np.float32),
                "timestep": np.array([500], np.float32),
                "text_states": draw((1, 77, 768), dtype=np.float32),
            }
        places = np.zeros((_TOKENS, 3), np.float32)
        places[:, 1], places[:, 2] = np.divmod(np.arange(_TOKENS), math.isqrt(_TOKENS))
        return {
            "latent": draw((1, _TOKENS, 64), dtype=np.float32),
            "timestep": np.array([0.5], np.float32),
            "text_states": draw((1, _TEXT, 4096), dtype=np.float32),
            "pooled_states": draw((1, 768), dtype=np.float32),
            "image_ids": places,
            "text_ids": np.zeros((_TEXT, 3), np.float32),
            "guidance": np.array([3.5], np.float32),
        }


DENOISERS = (
    Denoiser(
        "sd15",
        "stable-diffusion",
        Component.UNET,
        "UNet2DConditionModel",
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        ("conv_in.*", "conv_out.*"),
    ),
    Denoiser(
        "flux-slice",
        "flux",
        Component.TRANSFORMER,
        "FluxTransformer2DModel",
        {"num_layers": 1, "num_single_layers": 2, "guidance_embeds": True},
        (),
    ),
)


def export(denoiser: Denoiser, folder: Path) -> None:
    """Write the float32 graph of ``denoiser``, canonical, with its drawn weights."""
    module = module_on_meta(denoiser.class_name, denoiser.config)
    flat = flat_component(family_named(denoiser.family).spec(denoiser.component), module)
    model = graph_of(flat, str(denoiser.component))
    given = {tensor.name for tensor in flat.inputs}
    for value in list(model.graph.inputs):
        if value.name in given or value.shape is None:
            continue
        shape = tuple(side for side in value.shape if isinstance(side, int))
        model.graph.inputs.remove(value)
        value.const_value = _drawn(str(value.name), shape)
        model.graph.register_initializer(value)
    write_model(Canonicalize()(model, PassContext()).model, folder)


def _drawn(name: str, shape: tuple[int, ...]) -> ir.LazyTensor:
    return ir.LazyTensor(
        lambda: ir.Tensor(_values(name, shape), name=name), ir.DataType.FLOAT, ir.Shape(shape), name=name
    )


def _values(name: str, shape: tuple[int, ...]) -> Floats:
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    if name.endswith(".bias"):
        return draw.uniform(-0.02, 0.02, shape).astype(np.float32)
    if len(shape) == 1:
        return draw.uniform(0.9, 1.1, shape).astype(np.float32)
    return draw.standard_normal(shape, dtype=np.float32) * np.float32(0.8 / math.sqrt(math.prod(shape[1:])))
