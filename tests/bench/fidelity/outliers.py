"""Outliers: give a denoiser activations as spiky as those of large transformers, and keep its function.

A linear's input channel is made larger in what comes before the linear, and the linear's weight smaller by as
much. Which channels, and how much larger: of each input the few that are spikiest already, each raised until
its largest value is 50 to 300 times the root mean square of the whole input before.

What comes before: a LayerNorm's scale and bias (UNet), a modulation's rows (FLUX), the value projection of an
attention (both), the linear half of a gated feed-forward (UNet). A GELU or SiLU in between cannot be passed.
Factors are powers of two, so that float16 holds the scaled weights as exactly as the old ones; only FLUX's
modulation (1 + scale) gets a bias that float16 rounds, by 2**-11 of 1 + scale.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np
import torch
from tests.bench.fidelity.families import Family

from latentc.compiler.quiet import quiet_loading
from latentc.runtime.whole_file import whole_file
from latentc.validation.typed_json import as_list, as_number, as_object, json_object

Module: TypeAlias = Any  # diffusers is untyped

CHANNELS = 3
"""Channels of each input that are raised."""
SMALLEST_PEAK, LARGEST_PEAK = 50.0, 300.0
"""Between these lies a raised channel's largest value, over the root mean square of the input before."""
SAME_FUNCTION = 1e-5
"""How far the outputs on random inputs may be apart, relative, before the weights are stored in float16."""

_PROMPTS = (
    "a large red circle to the left of a small blue star on a white background",
    "a small yellow triangle above a large green square on a black background",
    "a small green star",
    "a large blue square below a small red circle on a yellow background",
)


@dataclass(frozen=True)
class Spikes:
    """What one linear reads: ``ratio`` is the largest magnitude over the root mean square of all channels,
    ``channel_ratio`` the same over that of the channels that were not raised.
    """

    linear: str
    ratio_before: float
    ratio_after: float
    channel_ratio_after: float


@dataclass(frozen=True)
class Spikiness:
    """Median and largest of what Spikes says of the linears, and how far the function moved.

    Args:
        ratio_before: of Spikes.
        ratio_after: of Spikes.
        channel_ratio_after: of Spikes.
        moved: relative, on random inputs in float64, weights stored in float16.
    """

    ratio_before: tuple[float, float]
    ratio_after: tuple[float, float]
    channel_ratio_after: tuple[float, float]
    moved: float


@dataclass(frozen=True)
class _Seen:
    """Of one linear's input, each channel's largest magnitude [K] and mean square [K]."""

    peaks: torch.Tensor
    squares: torch.Tensor

    @property
    def rms(self) -> float:
        return float(self.squares.mean().sqrt())

    @property
    def ratio(self) -> float:
        return float(self.peaks.max()) / self.rms


@dataclass(frozen=True)
class _Raised:
    """Channels [C] of what some linears read, and the factors [C] to raise them by."""

    channels: torch.Tensor
    factors: torch.Tensor

    def lower(self, linears: Sequence[Module]) -> None:
        """Divide the columns of ``linears`` that multiply these channels."""
        for linear in linears:
            linear.weight[:, self.channels] /= self.factors

    def raise_rows(self, module: Module, first: int = 0) -> None:
        """Multiply what ``module`` gives in these channels, counted from row ``first``."""
        rows = self.channels + first
        factors = self.factors if module.weight.ndim == 1 else self.factors[:, None]
        module.weight[rows] *= factors
        if module.bias is not None:
            module.bias[rows] *= self.factors

    def raise_modulation(self, module: Module, shift: int, scale: int, width: int) -> None:
        """Multiply (1 + scale) and shift, which are blocks ``scale`` and ``shift`` of ``width`` rows."""
        self.raise_rows(module, shift * width)
        self.raise_rows(module, scale * width)
        module.bias[self.channels + scale * width] += self.factors - 1


def with_outliers(family: Family, source: Path, out: Path, seed: int) -> None:
    """Write ``out``, the pipeline folder ``source`` with spiky activations, and ``out``.json beside it.

    Args:
        family: of the pipeline.
        source: a folder in diffusers' layout.
        out: appears whole or not at all; nothing is done when ``out``.json is there.
        seed: of the factors.

    Raises:
        RuntimeError: the function is not the same within SAME_FUNCTION.
    """
    facts = out.with_name(f"{out.name}.json")
    if facts.is_file():
        return
    pipeline = _loaded(family, source)
    denoiser = getattr(pipeline, family.denoiser)
    before = _spikes_seen(family, pipeline)
    wanted = _answers(family, _loaded(family, source), torch.float64)
    raised = _inject(family, denoiser, before, torch.Generator().manual_seed(seed))
    distance = _distance(_answers(family, pipeline, torch.float64), wanted)
    single = _distance(
        _answers(family, pipeline, torch.float32), _answers(family, _loaded(family, source), torch.float32)
    )
    if not max(distance, single) <= SAME_FUNCTION:
        raise RuntimeError(f"{source}: outputs moved by {distance:.1e} in float64, {single:.1e} in float32")
    _write(family, pipeline, source, out)
    stored = _loaded(family, out)
    after = _spikes_seen(family, stored)
    rows = [
        Spikes(name, before[name].ratio, after[name].ratio, _ratio_of_rest(after[name], raised[name]))
        for name in raised
    ]
    told = {
        "linears": [asdict(row) for row in rows],
        "moved_float64": distance,
        "moved_float32": single,
        "moved_by_float16_weights": _distance(_answers(family, stored, torch.float64), wanted),
    }
    with whole_file(facts) as file:
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_spikiness(out: Path) -> Spikiness | None:
    """What with_outliers found out about ``out``, or None while there is nothing."""
    facts = out.with_name(f"{out.name}.json")
    if not facts.is_file():
        return None
    told = json_object(facts, "remove it, and run again")
    rows = [as_object(row) for row in as_list(told["linears"])]

    def span(key: str) -> tuple[float, float]:
        values = [as_number(row[key]) for row in rows]
        return median(values), max(values)

    return Spikiness(
        span("ratio_before"),
        span("ratio_after"),
        span("channel_ratio_after"),
        as_number(told["moved_by_float16_weights"]),
    )


def _loaded(family: Family, folder: Path) -> Module:
    """The pipeline with its stored weights in float32."""
    import diffusers

    extras = {} if family.is_flux else {"safety_checker": None, "feature_extractor": None}
    with quiet_loading():
        pipeline = getattr(diffusers, family.pipeline_class).from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, **extras
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def _spikes_seen(family: Family, pipeline: Module) -> dict[str, _Seen]:
    """What each linear of the denoiser reads while a few pictures are drawn, by the linear's name."""
    peaks: dict[str, torch.Tensor] = {}
    squares: dict[str, torch.Tensor] = {}
    calls: dict[str, int] = {}

    def hook(name: str) -> Any:
        def look(module: Module, args: tuple[torch.Tensor, ...]) -> None:
            rows = args[0].reshape(-1, args[0].shape[-1])
            peak, square = rows.abs().amax(0), rows.double().square().mean(0)
            peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak
            squares[name] = squares.get(name, torch.zeros_like(square)) + square
            calls[name] = calls.get(name, 0) + 1

        return look

    denoiser = getattr(pipeline, family.denoiser)
    hooks = [
        part.register_forward_pre_hook(hook(name))
        for name, part in denoiser.named_modules()
        if isinstance(part, torch.nn.Linear)
    ]
    pipeline(
        list(_PROMPTS),
        num_inference_steps=20,
        guidance_scale=family.guidance,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    for handle in hooks:
        handle.remove()
    return {name: _Seen(peaks[name], squares[name] / calls[name]) for name in peaks}


@torch.no_grad()
def _inject(
    family: Family, denoiser: Module, seen: dict[str, _Seen], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Raise channels all over ``denoiser``; which ones, by the names of the linears that read them."""
    names = {part: name for name, part in denoiser.named_modules()}
    done: dict[str, torch.Tensor] = {}

    def raised(linears: Sequence[Module], width: int | None = None) -> _Raised:
        one = seen[names[linears[0]]]
        peaks, squares = one.peaks[:width], one.squares[:width]
        channels = (peaks / squares.clamp_min(1e-12).sqrt()).topk(CHANNELS).indices.sort().values
        exponents = torch.rand(CHANNELS, generator=generator, dtype=torch.float64)
        target = SMALLEST_PEAK * (LARGEST_PEAK / SMALLEST_PEAK) ** exponents
        factors = torch.exp2((target * one.rms / peaks[channels]).log2().floor()).to(torch.float32)
        found = _Raised(channels, factors.clamp_min(1))
        found.lower(linears)
        done.update({names[linear]: channels for linear in linears})
        return found

    if not family.is_flux:
        for block in (part for part in denoiser.modules() if type(part).__name__ == "BasicTransformerBlock"):
            own, cross, forward = block.attn1, block.attn2, block.ff.net
            raised([own.to_q, own.to_k, own.to_v]).raise_rows(block.norm1)
            raised([cross.to_q]).raise_rows(block.norm2)
            raised([forward[0].proj]).raise_rows(block.norm3)
            for attention in (own, cross):
                raised([attention.to_out[0]]).raise_rows(attention.to_v)
            raised([forward[2]]).raise_rows(forward[0].proj)  # GEGLU's first half is the linear one
        return done
    width = denoiser.inner_dim
    for block in denoiser.transformer_blocks:
        attention = block.attn
        image, text = block.norm1.linear, block.norm1_context.linear
        modulated = (
            (image, 0, 1, [attention.to_q, attention.to_k, attention.to_v]),
            (text, 0, 1, [attention.add_q_proj, attention.add_k_proj, attention.add_v_proj]),
            (image, 3, 4, [block.ff.net[0].proj]),
            (text, 3, 4, [block.ff_context.net[0].proj]),
        )
        for modulation, shift, scale, linears in modulated:
            raised(linears).raise_modulation(modulation, shift, scale, width)
        # image and text attend to one another, so that both values and both outputs share the channels
        values = raised([attention.to_out[0], attention.to_add_out])
        values.raise_rows(attention.to_v)
        values.raise_rows(attention.add_v_proj)
    for block in denoiser.single_transformer_blocks:
        attention = block.attn
        linears = [attention.to_q, attention.to_k, attention.to_v, block.proj_mlp]
        raised(linears).raise_modulation(block.norm.linear, 0, 1, width)
        raised([block.proj_out], width).raise_rows(attention.to_v)  # the attention's part comes first
    return done


@torch.no_grad()
def _answers(family: Family, pipeline: Module, dtype: torch.dtype) -> torch.Tensor:
    """What the denoiser gives for random inputs."""
    with quiet_loading():
        denoiser = getattr(pipeline, family.denoiser).to(dtype)
    generator = torch.Generator().manual_seed(1)

    def noise(*sides: int) -> torch.Tensor:
        return torch.randn(sides, generator=generator, dtype=torch.float64).to(dtype)

    config = denoiser.config
    given: dict[str, torch.Tensor]
    if family.is_flux:
        given = {
            "hidden_states": noise(2, 16, config.in_channels),
            "timestep": torch.tensor([0.9, 0.2], dtype=dtype),
            "encoder_hidden_states": noise(2, 12, config.joint_attention_dim),
            "pooled_projections": noise(2, config.pooled_projection_dim),
            "img_ids": torch.tensor([[0, row, column] for row in range(4) for column in range(4)]).to(dtype),
            "txt_ids": torch.zeros(12, 3, dtype=dtype),
        }
    else:
        given = {
            "sample": noise(2, config.in_channels, 8, 8),
            "timestep": torch.tensor([901.0, 101.0], dtype=dtype),
            "encoder_hidden_states": noise(2, 12, config.cross_attention_dim),
        }
    result: torch.Tensor = denoiser(**given, return_dict=False)[0]
    with quiet_loading():
        denoiser.to(torch.float32)
    return result.double()


def _distance(seen: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((seen - wanted).norm() / wanted.norm())


def _ratio_of_rest(seen: _Seen, raised: torch.Tensor) -> float:
    rest = np.delete(seen.squares.numpy(), raised.numpy())
    return float(seen.peaks.max()) / float(np.sqrt(rest.mean()))


def _write(family: Family, pipeline: Module, source: Path, out: Path) -> None:
    work = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    shutil.rmtree(work / family.denoiser)
    with quiet_loading():
        denoiser = getattr(pipeline, family.denoiser).to(torch.float16)
    denoiser.save_pretrained(work / family.denoiser, safe_serialization=True)
    shutil.rmtree(out, ignore_errors=True)
    work.rename(out)
