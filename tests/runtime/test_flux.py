"""Our loop against FluxPipeline, and the algebra of packed latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.torch_sessions import TorchComponents, manifest_of, unit_noise
from tests.tiny_models import TOKENS, write_tiny_flux

from latentc.errors import BundleError
from latentc.runtime.flux import Flux, image_ids, pack, unpack
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.picture import pixels_from_image
from latentc.runtime.pipeline import Embeddings, Step

# The modules are the very same torch modules in float32; only the schedule's last bits differ.
LATENT_TOLERANCE = 1e-5

T5_TOKENS = 24

SHIFTS: tuple[dict[str, Json], ...] = ({"shift": 3.0}, {"use_dynamic_shifting": True, "base_shift": 0.4})


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
def test_unpack_undoes_pack(B: int, C: int, rows: int, columns: int) -> None:
    shape = (B, C, 2 * rows, 2 * columns)
    latent = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    tokens = pack(latent)
    assert tokens.shape == (B, rows * columns, 4 * C)
    np.testing.assert_array_equal(unpack(tokens, 2 * rows, 2 * columns), latent)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_packing_is_diffusers_own(C: int, rows: int, columns: int) -> None:
    shape = (2, C, 2 * rows, 2 * columns)
    latent = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    expected = diffusers.FluxPipeline._pack_latents(torch.from_numpy(latent), *shape)
    np.testing.assert_array_equal(pack(latent), expected.numpy())
    ids = diffusers.FluxPipeline._prepare_latent_image_ids(2, rows, columns, "cpu", torch.float32)
    np.testing.assert_array_equal(image_ids(2 * rows, 2 * columns), ids.numpy())


def _pipelines(folder: Path, config: dict[str, Json], guided: bool) -> tuple[Any, Flux]:
    write_tiny_flux(folder, guidance_embeds=guided)
    theirs = diffusers.FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    components = TorchComponents(theirs, folder, {"tokenizer": TOKENS, "tokenizer_2": T5_TOKENS})
    entry = SchedulerEntry("FlowMatchEulerDiscreteScheduler", config)
    ours = Flux(manifest_of(theirs, components, entry), components.open_session, components.open_tokenizer)
    return theirs, ours


@pytest.mark.parametrize("config", SHIFTS)
@pytest.mark.parametrize("guided", [False, True])
def test_same_latents_and_picture(tmp_path: Path, config: dict[str, Json], guided: bool) -> None:
    theirs, ours = _pipelines(tmp_path, config, guided)
    prompts, steps = ["a red circle above a blue square", "a green triangle"], 4
    noise = unit_noise(1, (2, 4, 16, 12))  # 64 × 48 pixels: an exchange of height and width would show
    trajectory: list[np.typing.NDArray[np.float32]] = []

    def record(_: Any, index: int, timestep: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        trajectory.append(unpack(values["latents"].numpy(), 16, 12))
        return values

    expected = theirs(
        prompt=prompts,
        num_inference_steps=steps,
        guidance_scale=3.5,
        height=64,
        width=48,
        latents=torch.from_numpy(pack(noise)),
        max_sequence_length=T5_TOKENS,
        callback_on_step_end=record,
        output_type="np",
    ).images
    seen: list[Step] = []
    latent = ours.denoise(noise, ours.encode_text(prompts), steps=steps, guidance=3.5, observer=seen.append)
    assert ("guidance" in seen[0].inputs) == guided
    for step, theirs_latent in zip(seen, trajectory, strict=True):
        scale = float(np.abs(theirs_latent).max())
        np.testing.assert_allclose(step.latent, theirs_latent, rtol=0, atol=LATENT_TOLERANCE * scale)
    picture = pixels_from_image(ours.decode(latent))
    assert picture.shape == (2, 64, 48, 3)
    # A value that lies on the edge between two grey levels may round either way.
    difference = np.abs(picture.astype(int) - (expected * 255).round().astype(int))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


@torch.no_grad()
def test_embeddings_are_the_encoders_own(tmp_path: Path) -> None:
    theirs, ours = _pipelines(tmp_path, SHIFTS[0], False)
    expected, pooled, _ = theirs.encode_prompt("a red circle", None, "cpu", max_sequence_length=T5_TOKENS)
    embeddings = ours.encode_text(["a red circle"])
    np.testing.assert_array_equal(embeddings.text_states, expected.numpy())
    np.testing.assert_array_equal(embeddings.pooled_states, pooled.numpy())


def test_embeddings_without_a_pooled_prompt_are_refused(tmp_path: Path) -> None:
    _, ours = _pipelines(tmp_path, SHIFTS[0], False)
    with pytest.raises(BundleError, match="have no pooled prompt"):
        ours.denoise(unit_noise(0, (1, 4, 16, 16)), Embeddings(np.zeros((1, T5_TOKENS, 64), np.float32)))
