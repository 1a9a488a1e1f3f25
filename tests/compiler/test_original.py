"""The sampling loop is diffusers' own: equal to the pipeline's ``__call__`` for the same latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_models import write_tiny_flux, write_tiny_stable_diffusion_xl

from latentc.compiler.model_folder import open_model, sha256_of
from latentc.compiler.original import DenoiserCall, Original
from latentc.compiler.sampling_options import LoraFile, SamplingOptions
from latentc.errors import ModelError, ToolMissing

# diffusers' Euler gives a torch tensor to numpy in a form that numpy 2 calls old
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPTS = ("a red circle", "a blue square")

# The same operations in the same order; what differs is only how batches are laid out in memory.
TOLERANCE = 1e-5


def options_for(
    root: Path,
    scheduler: str,
    *,
    guidance: float = 1.0,
    steps: int = 3,
    loras: tuple[LoraFile, ...] = (),
    negative_prompt: str = "green",
) -> SamplingOptions:
    return SamplingOptions(
        root, open_model(root).digest, loras, scheduler, steps, guidance, 64, 64, negative_prompt
    )


def lora_of(path: Path, scale: float = 1.0) -> LoraFile:
    return LoraFile(path, sha256_of(path), scale)


def pipeline_of(root: Path, class_name: str, scheduler: Any = None) -> Any:
    import diffusers
    import torch

    pipeline = getattr(diffusers, class_name).from_pretrained(root, dtype=torch.float16).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    return pipeline


def drawn(original: Original, step_noise: Any = None) -> tuple[Any, Any]:
    """Noise and final latents of PROMPTS by our loop."""
    import torch

    noise = torch.randn((2, *original.latent_shape), generator=torch.Generator().manual_seed(5))
    embeddings = original.embed(original.token_ids(PROMPTS))
    calls: list[DenoiserCall] = []
    latents = original.denoise(noise, embeddings, original.embed_negative(), step_noise, calls.append)
    assert [call.step for call in calls] == list(range(original.options.steps))
    assert bool((calls[-1].latents == latents).all())
    return noise, latents


@pytest.mark.parametrize(("scheduler", "guidance"), [("ddim", 4.0), ("ddim", 1.0), ("euler", 4.0)])
def test_stable_diffusion(tiny_stable_diffusion: Path, scheduler: str, guidance: float) -> None:
    import diffusers

    original = Original(
        open_model(tiny_stable_diffusion).family,
        options_for(tiny_stable_diffusion, scheduler, guidance=guidance),
    )
    noise, latents = drawn(original)
    chosen = {"ddim": diffusers.DDIMScheduler, "euler": diffusers.EulerDiscreteScheduler}[scheduler]
    pipeline = pipeline_of(tiny_stable_diffusion, "StableDiffusionPipeline", chosen)
    settings: dict[str, Any] = {
        "prompt": list(PROMPTS), "negative_prompt": ["green"] * 2, "latents": noise,
        "height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": guidance,
    }  # fmt: skip
    expected = pipeline(**settings, output_type="latent").images
    np.testing.assert_allclose(latents, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))
    pictures = np.stack([np.asarray(picture) for picture in pipeline(**settings).images])
    # one step of 255 where a value lies on the edge between two
    assert int(np.abs(original.pictures(latents).astype(int) - pictures.astype(int)).max()) <= 1


@pytest.mark.parametrize(
    ("scheduler", "guidance", "negative_prompt"),
    [
        ("ddim", 4.0, "green"),
        ("ddim", 4.0, ""),
        ("euler", 4.0, ""),
        ("euler", 4.0, "green"),
        ("euler", 1.0, ""),
    ],
)
def test_stable_diffusion_xl(
    tiny_stable_diffusion_xl: Path, scheduler: str, guidance: float, negative_prompt: str
) -> None:
    import diffusers

    root = tiny_stable_diffusion_xl
    options = options_for(root, scheduler, guidance=guidance, negative_prompt=negative_prompt)
    original = Original(open_model(root).family, replace(options, width=48))
    noise, latents = drawn(original)
    chosen = {"ddim": diffusers.DDIMScheduler, "euler": diffusers.EulerDiscreteScheduler}[scheduler]
    pipeline = pipeline_of(root, "StableDiffusionXLPipeline", chosen)
    settings: dict[str, Any] = {
        "prompt": list(PROMPTS), "negative_prompt": [negative_prompt] * 2 if negative_prompt else None,
        "latents": noise, "height": 64, "width": 48, "num_inference_steps": 3, "guidance_scale": guidance,
    }  # fmt: skip
    expected = pipeline(**settings, output_type="latent").images
    np.testing.assert_allclose(latents, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))
    pictures = np.stack([np.asarray(picture) for picture in pipeline(**settings).images])
    # one step of 255 where a value lies on the edge between two
    assert int(np.abs(original.pictures(latents).astype(int) - pictures.astype(int)).max()) <= 1


def test_an_empty_negative_prompt_is_zeros_only_where_the_model_says_so(tmp_path: Path) -> None:
    import torch

    root = write_tiny_stable_diffusion_xl(tmp_path, force_zeros_for_empty_prompt=False)
    original = Original(open_model(root).family, options_for(root, "euler", guidance=4.0, negative_prompt=""))
    with torch.no_grad():
        _, states, _, pooled = pipeline_of(root, "StableDiffusionXLPipeline").encode_prompt("a red circle")
    negative = original.embed_negative()
    assert negative is not None
    assert float(states.abs().max()) > 0
    # the same modules and ids
    np.testing.assert_allclose(negative["text_states"], states, rtol=0, atol=1e-6)
    np.testing.assert_allclose(negative["pooled_states"], pooled, rtol=0, atol=1e-6)


def test_lcm_with_given_noise(tiny_stable_diffusion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers
    import torch
    from diffusers.schedulers import scheduling_lcm

    original = Original(
        open_model(tiny_stable_diffusion).family, options_for(tiny_stable_diffusion, "lcm", steps=4)
    )
    fresh = torch.randn((4, 2, *original.latent_shape), generator=torch.Generator().manual_seed(6))
    noise, latents = drawn(original, lambda step: fresh[step])
    given = iter(fresh)
    monkeypatch.setattr(scheduling_lcm, "randn_tensor", lambda *_args, **_kwargs: next(given))
    pipeline = pipeline_of(tiny_stable_diffusion, "StableDiffusionPipeline", diffusers.LCMScheduler)
    expected = pipeline(
        list(PROMPTS), latents=noise, height=64, width=64, num_inference_steps=4, guidance_scale=1.0,
        output_type="latent",
    ).images  # fmt: skip
    np.testing.assert_allclose(latents, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


@pytest.mark.gpu
def test_cuda_draws_what_the_cpu_draws(tiny_stable_diffusion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_for(tiny_stable_diffusion, "ddim", guidance=3.0)
    family = open_model(tiny_stable_diffusion).family
    on_cuda = Original(family, options)
    assert next(on_cuda.denoiser.parameters()).device.type == "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, expected = drawn(Original(family, options))
    _, latents = drawn(on_cuda)
    # other orders of float32 sums, three steps
    np.testing.assert_allclose(latents, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_a_gpu_that_torch_cannot_use_is_said(
    tiny_stable_diffusion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU of this machine")
    monkeypatch.setattr("latentc.compiler.original.accelerator", lambda: "Some GPU")
    with pytest.raises(ToolMissing) as refusal:
        Original(open_model(tiny_stable_diffusion).family, options_for(tiny_stable_diffusion, "ddim"))
    assert str(refusal.value) == (
        "torch: cannot use the Some GPU of this machine\n"
        "fix: install the torch that fits its driver, or set CUDA_VISIBLE_DEVICES= to stay on the CPU"
    )


@pytest.mark.parametrize("guidance_embeds", [False, True])
def test_flux(tmp_path: Path, guidance_embeds: bool) -> None:
    root = write_tiny_flux(tmp_path, guidance_embeds=guidance_embeds)
    original = Original(open_model(root).family, options_for(root, "flow-match-euler", guidance=2.5))
    assert not original.is_guided
    noise, latents = drawn(original)
    pipeline = pipeline_of(root, "FluxPipeline")
    packed = pipeline._pack_latents(noise, *noise.shape)
    expected = pipeline(
        list(PROMPTS), latents=packed, height=64, width=64, num_inference_steps=3, max_sequence_length=32,
        guidance_scale=2.5, output_type="latent",
    ).images  # fmt: skip
    expected = pipeline._unpack_latents(expected, 64, 64, pipeline.vae_scale_factor)
    np.testing.assert_allclose(latents, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


def test_a_fused_lora_equals_diffusers_with_its_scale(tiny_stable_diffusion: Path, tiny_lora: Path) -> None:
    family = open_model(tiny_stable_diffusion).family
    plain = Original(family, options_for(tiny_stable_diffusion, "ddim"))
    fused = Original(family, options_for(tiny_stable_diffusion, "ddim", loras=(lora_of(tiny_lora, 0.5),)))
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    from safetensors.numpy import load_file

    factors = load_file(tiny_lora)
    up, down = (factors[f"unet.{name}.lora_{side}.weight"].astype(np.float32) for side in "BA")
    weights = [
        dict(original.modules[family.denoiser].named_parameters())[f"original.{name}.weight"].detach().numpy()
        for original in (plain, fused)
    ]
    # no alpha in the file: the factors' product counts as it is
    np.testing.assert_allclose(weights[1], weights[0] + 0.5 * up @ down, atol=1e-6)


def test_a_lora_of_another_model_is_refused(tiny_flux: Path, tiny_lora: Path) -> None:
    with pytest.raises(ModelError) as caught:
        Original(
            open_model(tiny_flux).family,
            options_for(tiny_flux, "flow-match-euler", loras=(lora_of(tiny_lora),)),
        )
    assert str(caught.value).startswith(f"{tiny_lora}: ")


def test_loading_says_nothing(tiny_stable_diffusion: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from diffusers.utils import logging as diffusers_logging

    before = (diffusers_logging.get_verbosity(), diffusers_logging.is_progress_bar_enabled())
    Original(open_model(tiny_stable_diffusion).family, options_for(tiny_stable_diffusion, "ddim"))
    assert capfd.readouterr() == ("", "")
    assert (diffusers_logging.get_verbosity(), diffusers_logging.is_progress_bar_enabled()) == before
