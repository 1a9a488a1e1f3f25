"""Measure the saved models on held-out scenes, through diffusers' and transformers' own pipelines.

    python -m latentc.recipes.shapes.train.measure [model ...] [--prompts 500]

Prints one line of JSON for each figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline, LCMScheduler, StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from latentc.recipes.shapes.caption import caption
from latentc.recipes.shapes.read import read, shows
from latentc.recipes.shapes.render import Picture, Style
from latentc.recipes.shapes.scene import Scene, scenes_held_out
from latentc.recipes.shapes.train.pipelines import WEIGHTS, draw_with_flux, draw_with_sd
from latentc.recipes.shapes.train.train_clip import hard_negative_accuracy

FIRST_SEED = 1000
"""Seed of the first prompt's noise; prompt i is drawn with FIRST_SEED + i and said in paraphrase i."""

Figures = dict[str, float]


def score(pictures: Picture, scenes: Sequence[Scene]) -> Figures:
    """Shares of pictures right in each attribute and entirely, and of those read as outlined."""
    verdicts = [shows(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
    figures = {"entirely_right": float(np.mean([verdict.entirely_right for verdict in verdicts]))}
    for name in verdicts[0].by_attribute:
        figures[name] = float(np.mean([verdict.by_attribute[name] for verdict in verdicts]))
    figures["outlined"] = float(np.mean([read(picture).style is Style.OUTLINED for picture in pictures]))
    return figures


def prompts(count: int) -> tuple[list[Scene], list[str]]:
    """The first ``count`` held-out scenes, and a caption of each."""
    scenes = list(scenes_held_out()[:count])
    return scenes, [caption(scene, index) for index, scene in enumerate(scenes)]


def load_sd(weights: Path) -> StableDiffusionPipeline:
    """shapes-sd with its half-precision weights, computing in float32."""
    return StableDiffusionPipeline.from_pretrained(weights / "shapes-sd", torch_dtype=torch.float32)


def measure_sd(weights: Path, count: int) -> Figures:
    """shapes-sd: 20 steps with guidance."""
    scenes, texts = prompts(count)
    return score(draw_with_sd(load_sd(weights), texts, FIRST_SEED), scenes)


def measure_flux(weights: Path, count: int) -> Figures:
    """shapes-flux: 20 steps."""
    scenes, texts = prompts(count)
    pipeline = FluxPipeline.from_pretrained(weights / "shapes-flux", torch_dtype=torch.float32)
    return score(draw_with_flux(pipeline, texts, FIRST_SEED), scenes)


def measure_style_lora(weights: Path, count: int) -> Figures:
    """shapes-sd with the style adapter: 20 steps with guidance."""
    scenes, texts = prompts(count)
    pipeline = load_sd(weights)
    pipeline.load_lora_weights(weights / "shapes-sd-style-lora")
    return score(draw_with_sd(pipeline, texts, FIRST_SEED), scenes)


def measure_lcm_lora(weights: Path, count: int) -> Figures:
    """shapes-sd with the LCM adapter: 4 steps without guidance."""
    scenes, texts = prompts(count)
    pipeline = load_sd(weights)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    pipeline.load_lora_weights(weights / "shapes-sd-lcm-lora")
    return score(draw_with_sd(pipeline, texts, FIRST_SEED, steps=4, guidance=1.0), scenes)


def measure_four_steps(weights: Path, count: int) -> Figures:
    """shapes-sd without the LCM adapter at 4 DDIM steps, to compare with it."""
    scenes, texts = prompts(count)
    return score(draw_with_sd(load_sd(weights), texts, FIRST_SEED, steps=4), scenes)


def measure_clip(weights: Path, count: int) -> Figures:
    """shapes-clip: true caption against four that differ in one attribute."""
    folder = weights / "shapes-clip"
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    scenes, _ = prompts(count)
    return {"hard_negatives_right": hard_negative_accuracy(model, tokenizer, scenes, seed=1)}


MEASURES: dict[str, Callable[[Path, int], Figures]] = {
    "shapes-sd": measure_sd,
    "shapes-flux": measure_flux,
    "shapes-clip": measure_clip,
    "shapes-sd-style-lora": measure_style_lora,
    "shapes-sd-lcm-lora": measure_lcm_lora,
    "shapes-sd at 4 steps": measure_four_steps,
}


def main() -> None:
    """Measure the named models, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m latentc.recipes.shapes.train.measure", description=__doc__
    )
    parser.add_argument("models", nargs="*", help=f"any of: {', '.join(MEASURES)}")
    parser.add_argument("--prompts", type=int, default=500, help="how many held-out prompts")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the saved models")
    options = parser.parse_args()
    for name in options.models or MEASURES:
        began_s = time.monotonic()
        figures = MEASURES[name](options.weights, options.prompts)
        line = {
            "model": name,
            "prompts": options.prompts,
            **figures,
            "took_s": round(time.monotonic() - began_s),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
