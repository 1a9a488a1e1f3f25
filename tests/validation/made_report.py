"""A report that looks like a real one: rendered scenes, disturbed copies, and figures measured on them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.shapes.caption import scene_from_caption
from latentc.recipes.shapes.render import render
from latentc.recipes.target import target_named
from latentc.validation.attributes import wrong_attributes
from latentc.validation.finding import Finding
from latentc.validation.limits import Limits, limits_from_recipe
from latentc.validation.picture_metrics import psnr_db, ssim
from latentc.validation.prompts import read_prompts
from latentc.validation.report import (
    AllotmentRow,
    BuildFacts,
    Execution,
    FrontRow,
    LayerRow,
    PictureRow,
    RefusalRow,
    Report,
    SizeRow,
    StepRow,
    Timing,
    TrialRow,
)

LIMITS = {
    "text_encoder.sqnr_db": 24.0,
    "denoiser.sqnr_db": 18.0,
    "denoiser.cosine": 0.99,
    "vae_decoder.sqnr_db": 30.0,
    "trajectory.final_cosine": 0.96,
    "pictures.psnr_db": 20.0,
    "pictures.ssim": 0.8,
    "pictures.attribute_accuracy": 0.85,
    "pictures.attribute_accuracy_drop": 0.05,
}


def made_limits() -> Limits:
    return limits_from_recipe(LIMITS, STABLE_DIFFUSION)


def made_report(
    folder: Path, count: int = 64, noise_levels: float = 9.0, target: str = "ort-mobile", stand_in: str = ""
) -> Report:
    """Write pictures into ``folder`` and make the report about them; more noise breaks the limits."""
    pictures = _pictures(folder, count, noise_levels)
    denoiser_db = 27.5 - 9 * math.log10(max(noise_levels, 0.1) + 1)
    values = {
        "text_encoder.sqnr_db": 27.1,
        "text_encoder.worst_sqnr_db": 24.9,
        "text_encoder.relative_error": 0.0441,
        "text_encoder.cosine": 0.99903,
        "text_encoder.not_finite": 0.0,
        "unet.sqnr_db": denoiser_db,
        "unet.worst_sqnr_db": denoiser_db - 4.2,
        "unet.relative_error": 10 ** (-denoiser_db / 20),
        "unet.cosine": 1 - 10 ** (-denoiser_db / 10) / 2,
        "unet.not_finite": 0.0,
        "vae_decoder.sqnr_db": 36.4,
        "vae_decoder.worst_sqnr_db": 33.0,
        "vae_decoder.relative_error": 0.0151,
        "vae_decoder.cosine": 0.99989,
        "vae_decoder.not_finite": 0.0,
        "trajectory.first_step_sqnr_db": 41.2,
        "trajectory.final_sqnr_db": denoiser_db - 3,
        "trajectory.final_cosine": 1 - 10 ** (-(denoiser_db - 3) / 10) / 2,
        "trajectory.worst_cosine": 1 - 10 ** (-(denoiser_db - 9) / 10) / 2,
        "pictures.psnr_db": float(np.mean([row.psnr_db for row in pictures])),
        "pictures.worst_psnr_db": min(row.psnr_db for row in pictures),
        "pictures.ssim": float(np.mean([row.ssim for row in pictures if row.ssim is not None])),
        "pictures.worst_ssim": min(row.ssim for row in pictures if row.ssim is not None),
        "pictures.feature_distance": 0.0132,
        "pictures.clip_score": 31.4,
        "pictures.clip_score_drop": 0.21,
        "pictures.attribute_accuracy": sum(not row.result_wrong for row in pictures) / count,
        "pictures.attribute_accuracy_drop": sum(bool(row.result_wrong) for row in pictures) / count,
        "pictures.blank_pictures": 0.0,
    }
    limits = made_limits()
    findings = []
    for name, value in values.items():
        subject, _, short = name.rpartition(".")
        metric = limits.metrics[subject, short]
        interval = (value - 0.42, value + 0.39) if name == "pictures.psnr_db" else None
        findings.append(
            Finding(
                subject, short, value, limits.limit(subject, short), metric.unit, metric.direction,
                interval=interval,
            )
        )  # fmt: skip
    return Report(
        recipe="shapes-sd",
        target=target,
        family="stable-diffusion",
        execution=Execution(target_named(target).executes, (), stand_in),
        findings=tuple(findings),
        pictures=pictures,
        steps=_steps(noise_levels),
        sizes=(
            SizeRow("text_encoder", 1_780_000, 1_780_000, 0, 0),
            SizeRow("unet", 17_260_000, 5_410_000, 12_480_000, 3_640_000),
            SizeRow("vae_encoder", 1_120_000, 580_000, 0, 0),
            SizeRow("vae_decoder", 1_870_000, 980_000, 0, 0),
        ),
        bundle_bytes=9_420_000,
        build=BuildFacts(
            layers=_layers(),
            refusals=_refusals(),
            trials=_trials(),
            front=_front(),
            allotments=_allotments(),
            timings=(
                Timing("export", 14.2, 4),
                Timing("calibrate", 21.7, 1),
                Timing("transform", 9.6, 4),
                Timing("reference", 48.0, 1),
            ),
        ),
        timings=(
            Timing("text_encoder", 0.0011, 65),
            Timing("unet", 0.0094, 2560),
            Timing("vae_decoder", 0.0052, 64),
            Timing("one picture", 0.412, 64),
        ),
        notes=(
            "The VAE encoder has no golden tensors in this reference, so it was not compared.",
            "Intervals hold for 95 % of 2000 bootstrap samples of the prompts.",
        ),
        sampling={"steps": 20, "guidance": 4.0, "height": 64, "width": 64},
        scheduler="DDIMScheduler",
        environment={
            "machine": "x86_64, 2 cores",
            "python": "3.11.2",
            "onnxruntime": "1.31.1",
            "numpy": "2.4.6",
        },
        provenance={
            "manifest sha256": "6f1c2b0e4f7d5c0a9c4a44a1be0d90c6f0a9a6f6a4ce0a7f5d0b5a1b4f8e8d21",
            "made with": "diffusers 0.42.1, nncf 3.4.0, onnx 1.23.2, onnx-ir 1.1.0, torch 2.13.0",
        },
        resolved_recipe={"name": "shapes-sd", "sampling": {"scheduler": "ddim", "steps": 20}},
    )


def _pictures(folder: Path, count: int, noise_levels: float) -> tuple[PictureRow, ...]:
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for index, prompt in enumerate(read_prompts("demo:shapes", count, folder)):
        scene = scene_from_caption(prompt)
        original = render(scene, seed=index + 1)
        generator = np.random.default_rng(index)
        strength = noise_levels * float(generator.lognormal(0, 0.5))
        small = generator.normal(0, strength, (16, 16, 3)).astype(np.float32)
        coarse = np.stack(
            [
                np.asarray(Image.fromarray(small[..., c]).resize((64, 64), Image.Resampling.BICUBIC))
                for c in range(3)
            ],
            axis=-1,
        )
        shifted = render(scene, seed=index + 1 if strength < 2 * noise_levels else index + 200)
        blurred = np.asarray(Image.fromarray(shifted).filter(ImageFilter.GaussianBlur(0.6)), np.float32)
        result = np.clip(blurred + coarse, 0, 255).astype(np.uint8)
        names = f"pictures/{index:04d}-original.png", f"pictures/{index:04d}-result.png"
        Image.fromarray(original).save(folder / names[0])
        Image.fromarray(result).save(folder / names[1])
        rows.append(
            PictureRow(
                index, prompt, *names, psnr_db(result, original), ssim(result, original),
                0.01 + 0.001 * strength, 31.0 + float(generator.normal()), (),
                wrong_attributes(result, scene),
            )
        )  # fmt: skip
    return tuple(rows)


def _steps(noise_levels: float) -> tuple[StepRow, ...]:
    rows = []
    for step in range(1, 21):
        error = 0.0008 * noise_levels * step**1.25
        rows.append(StepRow(step, error, 1.9 * error + 0.002 * step, 1 - error**2 / 2))
    return tuple(rows)


def _layers() -> tuple[LayerRow, ...]:
    random = Random(1)
    rows = []
    blocks = ["down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2"]
    leaves = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k",
              "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2"]  # fmt: skip
    for block in blocks:
        for leaf in leaves:
            name = f"{block}.attentions.0.transformer_blocks.0.{leaf}.weight"
            error = random.lognormvariate(-2.9, 0.35)
            rows.append(LayerRow("unet", name, "quantize-int4", error))
    for number in range(12):
        rows.append(
            LayerRow("unet", f"down_blocks.{number % 3}.resnets.{number // 3}.conv1.weight", "quantize-int8",
                     random.lognormvariate(-5, 0.3))
        )  # fmt: skip
    return tuple(rows)


def _trials() -> tuple[TrialRow, ...]:
    """What GPTQ gave in a few layers, and where it did not carry over."""
    rows = []
    for number, layer in enumerate(("attn1.to_q", "attn1.to_out.0", "ff.net.2")):
        nearest, fitted = 0.05 + 0.01 * number, (0.03, 0.04, 0.09)[number]
        name = f"down_blocks.0.attentions.0.transformer_blocks.0.{layer}.weight"
        for way, error in (("nearest", nearest), ("gptq", fitted)):
            rows.append(
                TrialRow("unet", name, "quantize-int4", way, error, taken=error == min(nearest, fitted))
            )
    return tuple(rows)


def _front() -> tuple[FrontRow, ...]:
    """From 60 linears in INT4 to as many in INT8; the one that was taken is one of them."""
    rows = [
        FrontRow(
            "unet", 0.2656 + 0.0035 * n, 10 ** -(1.05 + 0.55 * (n / 60) ** 0.6), 60 - n, n, 0, taken=False
        )
        for n in range(0, 61, 2)
    ]
    return (*rows, replace(rows[7], taken=True))


def _allotments() -> tuple[AllotmentRow, ...]:
    names = [row.layer for row in _layers() if row.pass_name == "quantize-int4"]
    kinds = ("int8", "int4", "int4+8", "int4")
    return tuple(AllotmentRow("unet", name, kinds[number % 4]) for number, name in enumerate(names))


def _refusals() -> tuple[RefusalRow, ...]:
    rows = [
        RefusalRow(
            "unet",
            "quantize-int4",
            f"time_embedding.linear_{n}.weight",
            "K = 48 is no multiple of the group 64",
        )
        for n in (1, 2)
    ]
    rows += [
        RefusalRow(
            "unet", "quantize-int8", "conv_in.weight", "first convolution: 4 input channels lose too much"
        ),
        RefusalRow(
            "unet", "quantize-int8", "conv_out.weight", "last convolution: writes the prediction itself"
        ),
    ]
    return tuple(rows)
