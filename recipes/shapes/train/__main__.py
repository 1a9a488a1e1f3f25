"""Train the demo models one after the other, from a seed or from the saved weights.

    python -m latentc.recipes.shapes.train                     # everything, about four hours
    python -m latentc.recipes.shapes.train sd flux --from-weights

A stage that was cut off goes on from its last saved state in the work folder; to begin anew, give an
empty one with --work. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from latentc.recipes.shapes.render import Style
from latentc.recipes.shapes.scene import scenes_for_training
from latentc.recipes.shapes.train import train_flux, train_sd
from latentc.recipes.shapes.train.latents import LatentStore, make_latent_store
from latentc.recipes.shapes.train.pipelines import WEIGHTS, flux, save_pipeline, stable_diffusion
from latentc.recipes.shapes.train.train_clip import make_clip, save_clip, train_clip
from latentc.recipes.shapes.train.train_flux import FlowDenoiser
from latentc.recipes.shapes.train.train_lcm_lora import train_lcm_lora
from latentc.recipes.shapes.train.train_sd import Denoiser
from latentc.recipes.shapes.train.train_style_lora import save_lora, train_style_lora
from latentc.recipes.shapes.train.train_text import make_clip_text, make_t5, train_text
from latentc.recipes.shapes.train.train_vae import refine_decoder, train_vae
from latentc.recipes.shapes.train.vocabulary import clip_tokenizer, t5_tokenizer

DEFAULT_STEPS = {
    "text": 1_000,
    "vae": 4_000,
    "clip": 2_000,
    "sd": 10_700,
    "flux": 22_000,
    "style-lora": 1_100,
    "lcm-lora": 350,
}


@dataclass(frozen=True)
class Workshop:
    """Where training reads and writes, and how long it lasts.

    Args:
        work: folder for training states and caches.
        weights: folder for the finished models.
        seed: where all randomness comes from.
        steps: optimizer steps of the stage; ``None`` for its usual number.
        peak_rate: highest learning rate; ``None`` for the stage's usual one.
        from_weights: start from the finished models instead of from random weights.
    """

    work: Path
    weights: Path
    seed: int
    steps: int | None
    peak_rate: float | None
    from_weights: bool

    def steps_of(self, stage: str) -> int:
        """Optimizer steps of ``stage``."""
        return self.steps or DEFAULT_STEPS[stage]

    def latents(self, style: Style, count: int) -> LatentStore:
        """Encoded pictures of the training scenes."""
        cache = self.work / f"latents_{style.value}.pt"
        return make_latent_store(self.vae(), scenes_for_training(), count, self.seed, cache, style)

    def vae(self) -> AutoencoderKL:
        """The finished autoencoder in float32."""
        own = self.work / "vae"
        folder = own if own.exists() and not self.from_weights else self.weights / "shapes-sd" / "vae"
        return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()

    def clip_text(self) -> tuple[CLIPTextModel, CLIPTokenizer]:
        """The text tower that knows the grammar, and its tokenizer."""
        own, finished = self.work / "clip_text", self.weights / "shapes-sd"
        trained_here = own.exists() and not self.from_weights
        return (
            CLIPTextModel.from_pretrained(
                own if trained_here else finished / "text_encoder", dtype=torch.float32
            ),
            CLIPTokenizer.from_pretrained(own if trained_here else finished / "tokenizer"),
        )


def run_text(shop: Workshop) -> None:
    """Text towers."""
    torch.manual_seed(shop.seed)
    clip_words, t5_words = clip_tokenizer(), t5_tokenizer()
    steps = shop.steps_of("text")
    train_text(make_clip_text(clip_words), clip_words, shop.work / "clip_text", steps, shop.seed)
    train_text(make_t5(t5_words), t5_words, shop.work / "t5", steps, shop.seed)


def run_vae(shop: Workshop) -> None:
    """Autoencoder."""
    vae = train_vae(shop.work / "vae.pt", shop.steps_of("vae"), shop.seed)
    refine_decoder(vae, shop.steps_of("vae"), shop.seed, shop.work / "vae_refining")
    vae.save_pretrained(shop.work / "vae")


def run_clip(shop: Workshop) -> None:
    """shapes-clip."""
    text, words = shop.clip_text()
    model = make_clip(words, text)
    if shop.from_weights:
        model = CLIPModel.from_pretrained(shop.weights / "shapes-clip", dtype=torch.float32)
    train_clip(model, words, shop.work / "clip.pt", shop.steps_of("clip"), shop.seed)
    save_clip(model, words, shop.weights / "shapes-clip")


def run_sd(shop: Workshop) -> None:
    """shapes-sd."""
    folder = shop.weights / "shapes-sd"
    if shop.from_weights:
        words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    else:
        text, words = shop.clip_text()
        torch.manual_seed(shop.seed)
        unet = train_sd.make_unet()
    denoiser = Denoiser(unet, text)
    rate = shop.peak_rate or 1e-3
    train_sd.train_sd(
        denoiser,
        words,
        shop.latents(Style.FLAT, 60_000),
        shop.work / "sd.pt",
        shop.steps_of("sd"),
        shop.seed,
        rate,
    )
    save_pipeline(stable_diffusion(shop.vae(), text, words, unet, train_sd.make_scheduler()), folder)


def run_flux(shop: Workshop) -> None:
    """shapes-flux."""
    folder = shop.weights / "shapes-flux"
    if shop.from_weights:
        words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        pieces = T5TokenizerFast.from_pretrained(folder / "tokenizer_2")
        clip = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
        transformer = FluxTransformer2DModel.from_pretrained(
            folder / "transformer", torch_dtype=torch.float32
        )
    else:
        clip, words = shop.clip_text()
        t5 = T5EncoderModel.from_pretrained(shop.work / "t5")
        pieces = T5TokenizerFast.from_pretrained(shop.work / "t5")
        torch.manual_seed(shop.seed)
        transformer = train_flux.make_transformer()
    denoiser = FlowDenoiser(transformer, clip, t5)
    rate = shop.peak_rate or 1e-3
    train_flux.train_flux(
        denoiser,
        words,
        pieces,
        shop.latents(Style.FLAT, 60_000),
        shop.work / "flux.pt",
        shop.steps_of("flux"),
        shop.seed,
        rate,
    )
    pipeline = flux(shop.vae(), clip, words, t5, pieces, transformer, train_flux.make_scheduler())
    save_pipeline(pipeline, folder)


def run_style_lora(shop: Workshop) -> None:
    """shapes-sd-style-lora."""
    unet, text, words = _finished_sd(shop)
    store = shop.latents(Style.OUTLINED, 12_000)
    folder = shop.weights / "shapes-sd-style-lora"
    before = folder if shop.from_weights else None
    steps, rate = shop.steps_of("style-lora"), shop.peak_rate or 2e-3
    train_style_lora(unet, text, words, store, steps, shop.seed, rate, before)
    save_lora(unet, folder)


def run_lcm_lora(shop: Workshop) -> None:
    """shapes-sd-lcm-lora."""
    unet, text, words = _finished_sd(shop)
    store = shop.latents(Style.FLAT, 60_000)
    train_lcm_lora(unet, text, words, store, shop.steps_of("lcm-lora"), shop.seed, shop.peak_rate or 1e-3)
    save_lora(unet, shop.weights / "shapes-sd-lcm-lora")


STAGES: dict[str, Callable[[Workshop], None]] = {
    "text": run_text,
    "vae": run_vae,
    "clip": run_clip,
    "sd": run_sd,
    "flux": run_flux,
    "style-lora": run_style_lora,
    "lcm-lora": run_lcm_lora,
}


def main() -> None:
    """Run the named stages, or all, in their order."""
    parser = argparse.ArgumentParser(
        prog="python -m latentc.recipes.shapes.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", help=f"any of: {', '.join(STAGES)}")
    parser.add_argument("--work", type=Path, default=Path(".work/shapes"), help="training states and caches")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="finished models")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="optimizer steps, instead of the stage's usual number")
    parser.add_argument("--peak-rate", type=float, help="highest learning rate, instead of the usual one")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--from-weights", action="store_true", help="start from the finished models")
    options = parser.parse_args()
    unknown = set(options.stages) - set(STAGES)
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))}; choose of {', '.join(STAGES)}")
    torch.set_num_threads(options.threads)
    shop = Workshop(
        options.work, options.weights, options.seed, options.steps, options.peak_rate, options.from_weights
    )
    for stage, run in STAGES.items():
        if stage in (options.stages or STAGES):
            run(shop)


def _finished_sd(shop: Workshop) -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer]:
    folder = shop.weights / "shapes-sd"
    return (
        UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
    )


if __name__ == "__main__":
    main()
