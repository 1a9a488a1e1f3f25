"""Put trained parts together as diffusers' own pipelines, save them in half precision, and draw with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    T5EncoderModel,
    T5TokenizerFast,
)

from latentc.recipes.shapes.render import Picture
from latentc.recipes.shapes.train.vocabulary import MAX_TOKENS

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
STEPS = 20
GUIDANCE = 3.0
_DRAW_TOGETHER = 32


def stable_diffusion(
    vae: AutoencoderKL,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
) -> StableDiffusionPipeline:
    """The parts of shapes-sd as a pipeline without safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def flux(
    vae: AutoencoderKL,
    clip: CLIPTextModel,
    clip_tokenizer: CLIPTokenizer,
    t5: T5EncoderModel,
    t5_tokenizer: T5TokenizerFast,
    transformer: FluxTransformer2DModel,
    scheduler: FlowMatchEulerDiscreteScheduler,
) -> FluxPipeline:
    """The parts of shapes-flux as a pipeline."""
    return FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )


def save_pipeline(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Save in half precision as safetensors; ``folder`` appears whole or stays as it was."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(fresh, safe_serialization=True)
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None:
            save_tokenizer(tokenizer, fresh / name)
    for config in fresh.glob("*/config.json"):
        settings = json.loads(config.read_text(encoding="utf-8"))
        settings.pop("_name_or_path", None)  # where the part lay on the machine that trained it
        config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    replace_folder(fresh, folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save ``tokenizer.json`` and, for CLIP, the older ``vocab.json`` and ``merges.txt`` as well."""
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    if model["type"] == "BPE":
        merges = "\n".join(" ".join(pair) for pair in model["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
        vocab = json.dumps(model["vocab"], ensure_ascii=False)
        (folder / "vocab.json").write_text(vocab, encoding="utf-8")


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put ``fresh`` in the place of ``folder``."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def draw_with_sd(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    first_seed: int,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Picture:
    """Draw each prompt with its own seed, ``first_seed`` onwards: [B, H, W, 3] uint8."""
    return _draw(pipeline, prompts, first_seed, num_inference_steps=steps, guidance_scale=guidance)


def draw_with_flux(
    pipeline: FluxPipeline, prompts: Sequence[str], first_seed: int, steps: int = STEPS
) -> Picture:
    """Draw each prompt with its own seed, ``first_seed`` onwards: [B, H, W, 3] uint8."""
    return _draw(
        pipeline,
        prompts,
        first_seed,
        num_inference_steps=steps,
        guidance_scale=0.0,
        max_sequence_length=MAX_TOKENS,
    )


@torch.no_grad()
def _draw(
    pipeline: StableDiffusionPipeline | FluxPipeline,
    prompts: Sequence[str],
    first_seed: int,
    **arguments: float,
) -> Picture:
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    for start in range(0, len(prompts), _DRAW_TOGETHER):
        texts = list(prompts[start : start + _DRAW_TOGETHER])
        generators = [torch.Generator().manual_seed(first_seed + start + i) for i in range(len(texts))]
        drawn = pipeline(
            texts, height=64, width=64, generator=generators, output_type="np", **arguments
        ).images
        parts.append(np.round(drawn * 255).astype(np.uint8))
    return np.concatenate(parts)
