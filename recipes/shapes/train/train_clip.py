"""Train shapes-clip: pictures and captions in one space, with pairs that differ in a single attribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from latentc.recipes.shapes.caption import caption
from latentc.recipes.shapes.render import SIDE_PIXELS
from latentc.recipes.shapes.scene import (
    Background,
    Colour,
    Position,
    Scene,
    Shape,
    Size,
    is_held_out,
    scenes_for_training,
)
from latentc.recipes.shapes.train.pictures import draw_scenes, render_all
from latentc.recipes.shapes.train.pipelines import replace_folder, save_tokenizer
from latentc.recipes.shapes.train.progress import Progress, learning_rate
from latentc.recipes.shapes.train.prompts import PARAPHRASES, SLOTS, labels, tokenize
from latentc.recipes.shapes.train.train_denoiser import save_whole
from latentc.recipes.shapes.train.train_text import WIDTH, clip_text_config

Choice = TypeVar("Choice")

PAIRS = 32
POOL_PAIRS = 6_000


def make_clip(tokenizer: CLIPTokenizer, text: CLIPTextModel) -> CLIPModel:
    """An untrained vision tower beside a text tower that knows the grammar."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE_PIXELS,
        patch_size=8,
    )
    config = CLIPConfig(
        text_config=clip_text_config(tokenizer).to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=WIDTH,
    )
    model = CLIPModel(config)
    own = {name.removeprefix("text_model."): value for name, value in text.state_dict().items()}
    model.text_model.load_state_dict(own)
    return model


def make_processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """Takes 64x64 pictures as they are and scales them to [-1, 1]."""
    images = CLIPImageProcessor(
        size={"height": SIDE_PIXELS, "width": SIDE_PIXELS},
        do_center_crop=False,
        do_resize=True,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def altered(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that differs from ``scene`` in one attribute, or in the order of its things."""
    kind = int(rng.integers(0, 5))
    if kind == 0 and len(scene.things) == 2 and scene.things[0] != scene.things[1]:
        return replace(scene, things=scene.things[::-1])
    if kind == 0 and len(scene.things) == 1:
        return replace(scene, placement=_other(list(Position), scene.placement, rng))
    if kind <= 1:
        return replace(scene, background=_other(list(Background), scene.background, rng))
    which = int(rng.integers(0, len(scene.things)))
    thing = scene.things[which]
    if kind == 2:
        thing = replace(thing, colour=_other(list(Colour), thing.colour, rng))
    elif kind == 3:
        thing = replace(thing, shape=_other(list(Shape), thing.shape, rng))
    else:
        thing = replace(thing, size=_other(list(Size), thing.size, rng))
    things = tuple(thing if place == which else each for place, each in enumerate(scene.things))
    return replace(scene, things=things)


@sdpa_kernel(SDPBackend.MATH)  # the flash kernel's backward pass is slow on a CPU
def train_clip(model: CLIPModel, tokenizer: CLIPTokenizer, state_file: Path, steps: int, seed: int) -> None:
    """Train in place from ``seed``, going on from ``state_file`` if it is there."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scenes = _pairs(rng)
    pictures = torch.from_numpy(render_all(scenes, rng.integers(1, 1 << 30, len(scenes)).tolist()))
    tokens = torch.stack(
        [tokenize(tokenizer, [caption(scene, variant) for scene in scenes]) for variant in PARAPHRASES]
    )
    wanted = labels(scenes)
    heads = nn.ModuleList(nn.Linear(WIDTH, choices) for choices in SLOTS.values())
    trained = nn.ModuleDict({"clip": model, "heads": heads})
    groups = [
        {"params": [*model.vision_model.parameters(), *heads.parameters()], "factor": 1.0},
        {
            "params": [*model.visual_projection.parameters(), *model.text_projection.parameters()],
            "factor": 1.0,
        },
        {"params": [*model.text_model.parameters(), model.logit_scale], "factor": 0.1},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-2)
    first_step = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        trained.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_step = state["step"]
    model.train()
    progress = Progress("clip", steps, first_step)
    for step in range(first_step, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step, steps, 1e-3)
        pairs = rng.choice(len(scenes) // 2, PAIRS, replace=False)
        rows = torch.from_numpy(np.concatenate([2 * pairs, 2 * pairs + 1]))
        pixels = pictures[rows].permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            out = model(input_ids=tokens[step % len(PARAPHRASES), rows], pixel_values=pixels)
            read = [head(out.vision_model_output.pooler_output) for head in heads]
        matched = torch.arange(len(rows))
        logits = out.logits_per_image.float()
        contrast = functional.cross_entropy(logits, matched) + functional.cross_entropy(logits.T, matched)
        reading = sum(
            (functional.cross_entropy(each.float(), wanted[rows, slot]) for slot, each in enumerate(read)),
            torch.zeros(()),
        )
        loss = contrast + 0.3 * reading
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6)
        if (step + 1) % 50 == 0:
            right = (logits.argmax(1) == matched).float().mean().item()
            progress.write(step + 1, contrast=contrast.item(), reading=reading.item(), right=right)
        if (step + 1) % 250 == 0 or step + 1 == steps:
            save_whole(
                {"model": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1},
                state_file,
            )


def save_clip(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save in half precision; ``folder`` appears whole or stays as it was."""
    fresh = folder.with_name(f".{folder.name}.new")
    model.to(dtype=torch.float16).save_pretrained(fresh)
    make_processor(tokenizer).save_pretrained(fresh)
    save_tokenizer(tokenizer, fresh)
    replace_folder(fresh, folder)


@torch.no_grad()
def hard_negative_accuracy(
    model: CLIPModel, tokenizer: CLIPTokenizer, scenes: Sequence[Scene], seed: int
) -> float:
    """Share of pictures for which the true caption scores above all of four altered ones."""
    rng = np.random.default_rng(seed)
    model.eval()
    right = 0
    for index, scene in enumerate(scenes):
        texts = [caption(scene)]
        while len(texts) < 5:
            text = caption(altered(scene, rng))
            if text not in texts:
                texts.append(text)
        pixels = torch.from_numpy(render_all([scene], [index + 1])).permute(0, 3, 1, 2).float() / 127.5 - 1
        scores = model(input_ids=tokenize(tokenizer, texts), pixel_values=pixels).logits_per_image[0]
        right += int(scores.argmax() == 0)
    return right / len(scenes)


def _pairs(rng: np.random.Generator) -> list[Scene]:
    """Scenes of the training split at even places, each followed by an altered one of that split."""
    scenes = []
    for scene in draw_scenes(scenes_for_training(), POOL_PAIRS, rng):
        other = altered(scene, rng)
        while other == scene or is_held_out(other):
            other = altered(scene, rng)
        scenes += [scene, other]
    return scenes


def _other(choices: Sequence[Choice], current: object, rng: np.random.Generator) -> Choice:
    left = [choice for choice in choices if choice != current]
    return left[int(rng.integers(0, len(left)))]
