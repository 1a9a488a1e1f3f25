"""The tiny pipelines load with diffusers itself and are the same bytes for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny_models import (
    write_tiny_clip,
    write_tiny_flux,
    write_tiny_lora,
    write_tiny_stable_diffusion,
    write_tiny_stable_diffusion_xl,
)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_stable_diffusion_with_its_lora_draws_a_picture(tmp_path: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    folder = write_tiny_stable_diffusion(tmp_path / "sd")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    before = pipeline("a red circle", num_inference_steps=1, latents=latents, output_type="pt").images
    pipeline.load_lora_weights(write_tiny_lora(tmp_path / "lora"))
    after = pipeline("a red circle", num_inference_steps=1, latents=latents, output_type="pt").images
    assert before.shape == (1, 3, 64, 64)
    assert bool(before.isfinite().all())
    assert float((before - after).abs().max()) > 1e-3


# diffusers' Euler gives a torch tensor to numpy in a form that numpy 2 calls old
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_stable_diffusion_xl_draws_a_picture(tmp_path: Path) -> None:
    import torch
    from diffusers import StableDiffusionXLPipeline

    folder = write_tiny_stable_diffusion_xl(tmp_path / "xl")
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float16).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "a red circle", num_inference_steps=1, height=64, width=64, guidance_scale=1.0, output_type="pt"
    ).images
    assert picture.shape == (1, 3, 64, 64)
    assert bool(picture.isfinite().all())


def test_flux_draws_a_picture(tmp_path: Path) -> None:
    import torch
    from diffusers import FluxPipeline

    folder = write_tiny_flux(tmp_path / "flux")
    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float16).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "a red circle", num_inference_steps=1, height=64, width=64, max_sequence_length=16, output_type="pt"
    ).images
    assert picture.shape == (1, 3, 64, 64)
    assert bool(picture.isfinite().all())


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for write in (
        write_tiny_stable_diffusion,
        write_tiny_stable_diffusion_xl,
        write_tiny_flux,
        write_tiny_clip,
        write_tiny_lora,
    ):
        first = _bytes(write(tmp_path / write.__name__ / "first"))
        second = _bytes(write(tmp_path / write.__name__ / "second"))
        assert first == second
