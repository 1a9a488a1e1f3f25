"""The reference folder is what validation reads, holds what diffusers draws, and is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentc.compiler.clip_folder import open_clip
from latentc.compiler.model_folder import open_model, sha256_of
from latentc.compiler.sampling_options import LoraFile, SamplingOptions
from latentc.compiler.stages.reference import Reference
from latentc.errors import ModelError
from latentc.recipes.families.catalogue import family_named
from latentc.recipes.family import Component
from latentc.runtime import noise
from latentc.validation.reference import read_reference

PROMPTS = ("a red circle", "a blue square", "a green triangle")


def sampling(root: Path, scheduler: str = "ddim", guidance: float = 3.0) -> SamplingOptions:
    return SamplingOptions(root, open_model(root).digest, (), scheduler, 2, guidance, 64, 64)


def made(stage: Reference, out: Path) -> Path:
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


def test_a_reference_of_two_text_encoders(tiny_stable_diffusion_xl: Path, tmp_path: Path) -> None:
    stage = Reference("stable-diffusion-xl", sampling(tiny_stable_diffusion_xl, "euler"), PROMPTS, (0, 1, 2))
    reference = read_reference(made(stage, tmp_path / "out"))
    assert {name: states.shape for name, states in reference.embeddings().items()} == {
        "text_states": (3, 16, 64 + 128),
        "pooled_states": (3, 32),
        "negative.text_states": (1, 16, 64 + 128),
        "negative.pooled_states": (1, 32),
    }
    # no negative prompt was given
    assert not reference.embeddings()["negative.text_states"].any()
    second = reference.golden(Component.TEXT_ENCODER_2)
    np.testing.assert_array_equal(second.inputs["token_ids"], reference.token_ids()["tokenizer_2"])
    assert {name: array.shape for name, array in second.outputs.items()} == {
        "text_states": (3, 16, 128),
        "pooled_states": (3, 32),
    }
    # one row for each recorded call, though its name ends as FLUX's unbatched positions do
    np.testing.assert_array_equal(
        reference.golden(Component.UNET).inputs["time_ids"], [[64, 64, 0, 0, 64, 64]] * 8
    )


def test_an_lcm_reference_stores_its_noise(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    stage = Reference("stable-diffusion", sampling(tiny_stable_diffusion, "lcm", 1.0), PROMPTS, (0, 1, 2))
    reference = read_reference(made(stage, tmp_path / "out"))
    fresh = reference.step_noise()
    assert fresh is not None
    np.testing.assert_array_equal(fresh[:, 0], noise.step_noise((0, 1, 2), 0, 4, 16, 16))
    assert "negative.tokenizer" not in reference.token_ids()


def test_a_flux_reference_with_clip(tiny_flux: Path, tiny_clip: Path, tmp_path: Path) -> None:
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
    assert seen.text_features.shape == (3, 32)


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
