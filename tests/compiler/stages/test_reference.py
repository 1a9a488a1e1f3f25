"""The reference folder is what validation reads, holds what diffusers draws, and is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentc.compiler.clip_folder import open_clip
from latentc.compiler.model_folder import open_model, sha256_of
from latentc.compiler.sampling_options import LoraFile, SamplingOptions
from latentc.compiler.stages.calibrate import Calibrate
from latentc.compiler.stages.reference import Reference
from latentc.errors import ModelError
from latentc.recipes.family import Component, family_named
from latentc.runtime import noise
from latentc.validation.features import PictureFeatures
from latentc.validation.reference import read_reference

PROMPTS = ("a red circle", "a blue square", "a green triangle")


def sampling(root: Path, scheduler: str = "ddim", guidance: float = 3.0) -> SamplingOptions:
    return SamplingOptions(root, open_model(root).digest, (), scheduler, 2, guidance, 64, 64)


def made(stage: Reference | Calibrate, out: Path) -> Path:
    said: list[float] = []
    out.mkdir(parents=True)
    stage.run({}, out, lambda fraction, _words: said.append(fraction))
    assert said == sorted(said)
    assert said[0] == 0.0
    assert said[-1] == 1.0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_guided_reference(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    stage = Reference("stable-diffusion", sampling(tiny_stable_diffusion), PROMPTS, (3, 4, 2**63), 2)
    reference = read_reference(made(stage, tmp_path / "first"))
    assert reference.prompts == PROMPTS
    assert reference.seeds == (3, 4, 2**63)
    assert (reference.steps, reference.guidance, reference.height, reference.width) == (2, 3.0, 64, 64)
    np.testing.assert_array_equal(reference.initial_latents(), noise.initial_latent((3, 4, 2**63), 4, 16, 16))
    assert reference.step_noise() is None
    trajectory = reference.trajectory()
    assert trajectory.shape == (2, 3, 4, 16, 16)
    np.testing.assert_array_equal(trajectory[:, 0], reference.initial_latents()[:2])  # DDIM scales by 1
    np.testing.assert_array_equal(trajectory[:, -1], reference.final_latents()[:2])
    assert {name: ids.shape for name, ids in reference.token_ids().items()} == {
        "tokenizer": (3, 16),
        "negative.tokenizer": (1, 16),
    }
    assert {name: states.shape for name, states in reference.embeddings().items()} == {
        "text_states": (3, 16, 64),
        "negative.text_states": (1, 16, 64),
    }
    assert reference.picture(2).shape == (64, 64, 3)
    assert reference.components() == tuple(
        spec.component for spec in family_named("stable-diffusion").components
    )
    assert reference.golden(Component.UNET).inputs["latent"].shape == (8, 4, 16, 16)
    # again, to the byte
    assert contents(made(stage, tmp_path / "second")) == contents(tmp_path / "first")


def test_golden_tensors_are_what_diffusers_computes(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    stage = Reference("stable-diffusion", sampling(tiny_stable_diffusion), PROMPTS, (0, 1, 2))
    reference = read_reference(made(stage, tmp_path / "out"))
    unet = UNet2DConditionModel.from_pretrained(tiny_stable_diffusion / "unet", dtype=torch.float32)
    golden = reference.golden(Component.UNET)
    given = {name: torch.from_numpy(array) for name, array in golden.inputs.items()}
    with torch.no_grad():
        expected = unet(given["latent"], given["timestep"], given["text_states"]).sample.numpy()
    np.testing.assert_allclose(
        golden.outputs["prediction"], expected, rtol=0, atol=1e-5 * float(np.abs(expected).max())
    )
    vae = AutoencoderKL.from_pretrained(tiny_stable_diffusion / "vae", dtype=torch.float32)
    decoder = reference.golden(Component.VAE_DECODER)
    np.testing.assert_allclose(
        decoder.inputs["latent"], reference.final_latents() / vae.config.scaling_factor, rtol=1e-6
    )
    with torch.no_grad():
        image = vae.decode(torch.from_numpy(decoder.inputs["latent"])).sample.numpy()
    np.testing.assert_allclose(
        decoder.outputs["image"], image, rtol=0, atol=1e-5 * float(np.abs(image).max())
    )


def test_an_lcm_reference_stores_its_noise(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    stage = Reference("stable-diffusion", sampling(tiny_stable_diffusion, "lcm", 1.0), PROMPTS, (0, 1, 2))
    reference = read_reference(made(stage, tmp_path / "out"))
    fresh = reference.step_noise()
    assert fresh is not None
    np.testing.assert_array_equal(fresh[:, 0], noise.step_noise((0, 1, 2), 0, 4, 16, 16))
    assert "negative.tokenizer" not in reference.token_ids()


def test_a_flux_reference_with_clip(tiny_flux: Path, tiny_clip: Path, tmp_path: Path) -> None:
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    clip = open_clip(tiny_clip)
    stage = Reference(
        "flux", sampling(tiny_flux, "flow-match-euler", 1.0), PROMPTS, (0, 1, 2), 8, clip.root, clip.digest
    )
    reference = read_reference(made(stage, tmp_path / "out"))
    assert reference.trajectory_prompts == 3
    assert reference.embeddings()["pooled_states"].shape == (3, 64)
    golden = reference.golden(Component.TRANSFORMER)
    assert golden.inputs["image_ids"].shape == (64, 3)
    assert golden.inputs["text_ids"].shape == (32, 3)
    assert len(golden.inputs["latent"]) == len(golden.outputs["prediction"]) == 6  # 3 prompts × 2 steps
    seen = reference.clip()
    assert seen is not None
    model = CLIPModel.from_pretrained(tiny_clip, dtype=torch.float32)
    tokens = CLIPTokenizer.from_pretrained(tiny_clip)(list(PROMPTS), padding=True, return_tensors="pt")
    picture = reference.picture(0)
    pixels = torch.from_numpy((picture.transpose(2, 0, 1)[None] / 255.0).astype(np.float32))
    mean, std = (torch.tensor(three).reshape(3, 1, 1) for three in (seen.mean, seen.std))
    with torch.no_grad():
        result = model(**tokens, pixel_values=(pixels - mean) / std)
    np.testing.assert_allclose(seen.text_features, result.text_embeds.numpy(), atol=1e-5)
    with PictureFeatures(seen) as features:
        np.testing.assert_allclose(features.of_picture(picture), result.image_embeds[0].numpy(), atol=1e-5)


def test_options_hold_digests_and_no_path(tiny_stable_diffusion: Path, tiny_lora: Path) -> None:
    plain = sampling(tiny_stable_diffusion)
    lora = LoraFile(tiny_lora, sha256_of(tiny_lora), 0.8)
    with_lora = SamplingOptions(plain.model_root, plain.model_digest, (lora,), "ddim", 2, 3.0, 64, 64)
    options = Reference("stable-diffusion", with_lora, PROMPTS, (0, 1, 2)).options()
    assert str(tiny_stable_diffusion) not in str(options)
    assert str(tiny_lora) not in str(options)
    inner = options["sampling"]
    assert isinstance(inner, dict)
    assert inner["loras"] == [{"sha256": lora.sha256, "scale": 0.8}]
    assert Reference("stable-diffusion", plain, PROMPTS, (0, 1, 2)).options() != options


def test_a_checkpoint_that_overflows_is_no_reference(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    root = Path(shutil.copytree(tiny_stable_diffusion, tmp_path / "model"))
    path = root / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    # finite as float32, so the folder is sound, but not as the float16 that the reference stands for
    weights["conv_out.bias"] = np.full(4, 1e30, np.float32)
    save_file(weights, path)
    stage = Reference("stable-diffusion", sampling(root), PROMPTS, (0, 1, 2))
    with pytest.raises(ModelError, match="the original itself gives NaN or infinity for prompt 0"):
        made(stage, tmp_path / "out")


def test_calibration_samples(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    stage = Calibrate("stable-diffusion", sampling(tiny_stable_diffusion), PROMPTS, (10, 11, 12), 5)
    out = made(stage, tmp_path / "first")
    counts = {folder.name: len(list(folder.iterdir())) for folder in out.iterdir()}
    assert counts == {"text_encoder": 3, "unet": 5, "vae_encoder": 3, "vae_decoder": 3}
    for spec in family_named("stable-diffusion").components:
        with np.load(out / str(spec.component) / "0000.npz") as sample:
            assert set(sample.files) == {tensor.name for tensor in spec.inputs}
            for tensor in spec.inputs:
                assert sample[tensor.name].dtype == tensor.dtype
                assert len(sample[tensor.name]) == 1
                assert sample[tensor.name].ndim == len(tensor.axes)
    times = {float(np.load(path)["timestep"][0]) for path in (out / "unet").iterdir()}
    assert len(times) == 2  # both steps
    assert contents(made(stage, tmp_path / "second")) == contents(out)


def test_calibration_of_flux_keeps_ids_without_batch(tiny_flux: Path, tmp_path: Path) -> None:
    stage = Calibrate("flux", sampling(tiny_flux, "flow-match-euler", 1.0), PROMPTS[:1], (10,), 2)
    out = made(stage, tmp_path / "out")
    with np.load(out / "transformer" / "0001.npz") as sample:
        shapes = {name: sample[name].shape for name in sample.files}
    assert shapes == {
        "latent": (1, 64, 16), "timestep": (1,), "text_states": (1, 32, 64), "pooled_states": (1, 64),
        "image_ids": (64, 3), "text_ids": (32, 3),
    }  # fmt: skip
