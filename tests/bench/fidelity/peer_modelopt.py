"""Peer: NVIDIA Model Optimizer's svdquant on a diffusers pipeline, in an environment of its own.

    python peer_modelopt.py TASK.json

Reads what latentc's side wrote (see peer.py and layer.py) and writes arrays; imports only torch, diffusers,
modelopt and numpy. Everything is fake-quantized: weights and activations are rounded, products are float32.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import modelopt.torch.quantization as mtq
import numpy as np
import torch

Json: TypeAlias = "dict[str, Any]"
Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"

TOGETHER = 16
"""Prompts drawn together, always: Model Optimizer's groups of activations want one shape all along."""
ROWS = 1024
"""Rows of a single layer to calibrate with, and as many of other prompts to judge by."""
HELD_OUT_EVERY = 3


def main(path: Path) -> int:
    """Do what ``path`` asks for."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    task = json.loads(path.read_text(encoding="utf-8"))
    with torch.no_grad():
        if task["work"] == "draw":
            draw_task(task)
        else:
            layers_task(task)
    return 0


def draw_task(task: Json) -> None:
    """Quantize, and draw the prompts from each of the noises given."""
    pipeline = loaded(task)
    denoiser = getattr(pipeline, task["denoiser"])
    noises = [np.load(file) for file in task["noises"]]
    # the same pipeline without quantization has to draw what latentc's references have
    untouched = [draw(pipeline, task, task["prompts"][:TOGETHER], noise[:TOGETHER], None) for noise in noises]
    quantize(denoiser, task, lambda _: calibrate(pipeline, task))
    for seed, noise in enumerate(noises):
        steps: list[torch.Tensor] = []
        latents = draw(pipeline, task, task["prompts"], noise, steps)
        kept = task["trajectory_prompts"]
        count = task["steps"]
        chunks = [torch.stack(steps[start : start + count], 1) for start in range(0, len(steps), count)]
        arrays = {
            "untouched": untouched[seed].numpy(),
            "final_latents": latents.numpy(),
            "trajectory": torch.cat(chunks)[:kept].numpy(),
            "pictures": pictures(pipeline, latents),
        }
        save(Path(task["out"]) / f"drawn{seed}.npz", arrays)


def layers_task(task: Json) -> None:
    """Quantize single linears on rows of what they read; one file a linear."""
    pipeline = loaded(task)
    denoiser: torch.nn.Module = getattr(pipeline, task["denoiser"])
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in task["layers"]}

    def hook(name: str) -> Callable[..., None]:
        def look(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen[name].append(args[0].detach().clone())

        return look

    hooks = [denoiser.get_submodule(name).register_forward_pre_hook(hook(name)) for name in seen]
    calibrate(pipeline, task)
    for handle in hooks:
        handle.remove()
    for name, calls in seen.items():
        layer: Any = denoiser.get_submodule(name)
        fit, held_out = rows_of(torch.stack(calls))
        alone: Any = torch.nn.Sequential(torch.nn.Linear(layer.in_features, layer.out_features, bias=False))
        alone[0].weight.copy_(layer.weight)
        only = {**task, "treated": ["0"], "plain": []}
        quantize(alone, only, partial(apply, rows=fit))
        arrays = {
            "weight": layer.weight.numpy().copy(),
            "fit": fit.numpy(),
            "held_out": held_out.numpy(),
            "scale": alone[0].input_quantizer.pre_quant_scale.numpy(),
            "outputs": alone(held_out).numpy(),
        }
        save(Path(task["out"]) / f"{name}.npz", arrays)


def apply(model: torch.nn.Module, rows: torch.Tensor) -> None:
    """Run ``model``, for Model Optimizer to look on."""
    model(rows)


def rows_of(calls: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[ROWS, K] to fit to and as many held out, spread over steps, prompts and tokens of [calls, B, T, K]."""
    prompts = torch.arange(calls.shape[1]) % TOGETHER
    held = prompts % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    generator = torch.Generator().manual_seed(0)
    picked = []
    for part in (~held, held):
        rows = calls[:, part].reshape(-1, calls.shape[-1])
        picked.append(rows[torch.randperm(len(rows), generator=generator)[:ROWS].sort().values])
    return picked[0], picked[1]


def quantize(denoiser: torch.nn.Module, task: Json, forward: Callable[[torch.nn.Module], object]) -> None:
    """Model Optimizer's own svdquant in place, in INT4 with groups instead of NVFP4.

    Weights: INT4, groups along the inputs. Activations: dynamic, the same groups; not rounded at 16 bits.
    Smoothing is its own, AWQ's search as its svdquant calls it. Plain linears are rounded and nothing else.
    """
    group, bits = task["group"], task["activation_bits"]
    inputs = {"num_bits": bits, "type": "dynamic", "block_sizes": {-1: group}}
    entries = [{"quantizer_name": "*", "enable": False}]
    entries += [weights_of(name, group) for name in task["treated"]]
    if bits < 16:
        entries += [{"quantizer_name": f"{name}.input_quantizer", "cfg": inputs} for name in task["treated"]]
    algorithm = {"method": "svdquant", "lowrank": task["rank"]}
    mtq.quantize(denoiser, {"quant_cfg": entries, "algorithm": algorithm}, forward)
    if bits < 16:
        for name in task["treated"]:
            step_for_each_token_and_group(denoiser.get_submodule(f"{name}.input_quantizer"), group)
    # svdquant's own skip_layers fails in 0.47 on INT4: quantizers of skipped linears lack the attributes
    # that its forward asks for. What skipping means, rounding by the largest magnitude, is done here.
    for name in task["plain"]:
        layer: Any = denoiser.get_submodule(name)
        alone: Any = torch.nn.Sequential(torch.nn.Linear(layer.in_features, layer.out_features, bias=False))
        alone[0].weight.copy_(layer.weight)
        plain = [{"quantizer_name": "*", "enable": False}, weights_of("0", group)]
        mtq.quantize(alone, {"quant_cfg": plain, "algorithm": "max"}, None)
        layer.weight.copy_(alone[0].weight_quantizer(alone[0].weight))


def weights_of(name: str, group: int) -> Json:
    """INT4 in groups, for one linear's weight."""
    given = {"num_bits": 4, "block_sizes": {-1: group, "type": "static"}}
    return {"quantizer_name": f"{name}.weight_quantizer", "cfg": given}


def step_for_each_token_and_group(quantizer: Any, group: int) -> None:
    """Make a dynamic quantizer in groups compute its steps from each token and group again.

    AWQ's search sets the axis to the channels, for statistics of its own, and in 0.47 leaves it there. With
    groups of integers that would be one step for a channel over all tokens, which no integer product can use.
    """
    for attribute in ("_block_reshape_size", "_original_shape", "_amax_shape_for_export"):
        if hasattr(quantizer, attribute):
            delattr(quantizer, attribute)
    quantizer.block_sizes = {-1: group}


def loaded(task: Json) -> Any:
    """The pipeline with fp16 weights, computed in float32, as latentc's reference is."""
    extras = {} if is_flux(task) else {"safety_checker": None, "feature_extractor": None}
    pipeline = getattr(diffusers, task["pipeline_class"]).from_pretrained(
        task["model"], dtype=torch.float16, use_safetensors=True, local_files_only=True, **extras
    )
    pipeline.to(torch.float32)
    scheduler = getattr(diffusers, task["scheduler_class"])
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def is_flux(task: Json) -> bool:
    """Whether latents are packed."""
    return bool(task["denoiser"] == "transformer")


def calibrate(pipeline: Any, task: Json) -> None:
    """Draw the calibration prompts, all steps of them."""
    given = task["calibration"]
    draw(pipeline, task, given["prompts"], np.load(given["noise"]), None)


def draw(
    pipeline: Any, task: Json, prompts: list[str], noise: Floats, steps: list[torch.Tensor] | None
) -> torch.Tensor:
    """Final latents [P, C, h, w]; into ``steps`` those after each step, batch by batch."""
    results = []
    for start in range(0, len(prompts), TOGETHER):
        some = prompts[start : start + TOGETHER]
        count = len(some)
        padded = [*some, *[some[-1]] * (TOGETHER - count)]
        latents = torch.from_numpy(noise[start : start + TOGETHER])
        latents = torch.cat([latents, latents[-1:].expand(TOGETHER - count, -1, -1, -1)])
        given: Json = {"latents": latents, "guidance_scale": task["guidance"]}
        if is_flux(task):
            given["latents"] = pipeline._pack_latents(latents, *latents.shape)
            given["max_sequence_length"] = task["text_tokens"]

        def after(_: Any, step: int, time: Any, values: Json, count: int = count) -> Json:
            if steps is not None:
                steps.append(unpacked(pipeline, task, values["latents"])[:count].clone())
            return values

        result = pipeline(
            prompt=padded,
            num_inference_steps=task["steps"],
            height=task["height"],
            width=task["width"],
            output_type="latent",
            callback_on_step_end=after,
            **given,
        )
        results.append(unpacked(pipeline, task, result.images)[:count])
    return torch.cat(results)


def unpacked(pipeline: Any, task: Json, latents: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] of what the pipeline calls latents."""
    if not is_flux(task):
        return latents
    result: torch.Tensor = pipeline._unpack_latents(
        latents, task["height"], task["width"], pipeline.vae_scale_factor
    )
    return result


def pictures(pipeline: Any, latents: torch.Tensor) -> Any:
    """[P, H, W, 3] uint8, decoded as the pipeline does."""
    config = pipeline.vae.config
    scaled = latents / config.scaling_factor + (config.shift_factor or 0.0)
    images = [pipeline.vae.decode(part, return_dict=False)[0] for part in scaled.split(TOGETHER)]
    unit = pipeline.image_processor.postprocess(torch.cat(images), output_type="np")
    return (unit * 255).round().astype(np.uint8)


def save(path: Path, arrays: dict[str, Any]) -> None:
    """Write an archive that is there whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part.npz")
    np.savez(part, **arrays)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
