"""Our loop against StableDiffusionXLPipeline: same latents and prompts in, same latents and picture out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tests.runtime.torch_sessions import TorchComponents, manifest_of, unit_noise
from tests.tiny_models import TOKENS, write_tiny_stable_diffusion_xl

from latentc.errors import BundleError
from latentc.recipes.family import Component
from latentc.runtime.generate import generate
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.picture import pixels_from_image
from latentc.runtime.pipeline import Embeddings, Step
from latentc.runtime.stable_diffusion_xl import StableDiffusionXL

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:diffusers"
)

# The modules are the very same torch modules in float32; only the schedule's last bits differ.
LATENT_TOLERANCE = 1e-5

BETAS: dict[str, Json] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM: tuple[str, dict[str, Json]] = (
    "DDIMScheduler",
    {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
)
EULER: tuple[str, dict[str, Json]] = (
    "EulerDiscreteScheduler",
    {**BETAS, "timestep_spacing": "leading", "steps_offset": 1},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_stable_diffusion_xl(tmp_path_factory.mktemp("xl"))


@pytest.fixture
def theirs(folder: Path) -> Any:
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _ours(theirs: Any, folder: Path, name: str, config: dict[str, Json]) -> StableDiffusionXL:
    theirs.scheduler = getattr(diffusers, name)(**config)
    components = TorchComponents(theirs, folder, {"tokenizer": TOKENS, "tokenizer_2": TOKENS})
    manifest = manifest_of(theirs, components, SchedulerEntry(name, config))
    return StableDiffusionXL(manifest, components.open_session, components.open_tokenizer)


@pytest.mark.parametrize(("name", "config"), [DDIM, EULER])
@pytest.mark.parametrize(("guidance", "negative_prompt"), [(1.0, ""), (5.0, ""), (5.0, "small")])
def test_same_latents_and_picture(
    theirs: Any, folder: Path, name: str, config: dict[str, Json], guidance: float, negative_prompt: str
) -> None:
    ours = _ours(theirs, folder, name, config)
    noise = unit_noise(3, (1, 4, 16, 12))  # 64 × 48 pixels: an exchange of height and width would show
    trajectory: list[np.typing.NDArray[np.float32]] = []

    def record(_: Any, index: int, timestep: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        trajectory.append(values["latents"].numpy().copy())
        return values

    expected = theirs(
        prompt="a red circle",
        negative_prompt=negative_prompt or None,
        num_inference_steps=4,
        guidance_scale=guidance,
        height=64,
        width=48,
        latents=torch.from_numpy(noise),
        callback_on_step_end=record,
        output_type="np",
    ).images
    seen: list[Step] = []
    embeddings = ours.encode_text(["a red circle"])
    negative = ours.encode_negative(negative_prompt, embeddings)
    latent = ours.denoise(
        noise, embeddings, negative=negative, steps=4, guidance=guidance, observer=seen.append
    )
    assert len(seen) == len(trajectory) == 4
    for step, theirs_latent in zip(seen, trajectory, strict=True):
        scale = float(np.abs(theirs_latent).max())
        np.testing.assert_allclose(step.latent, theirs_latent, rtol=0, atol=LATENT_TOLERANCE * scale)
    rows = 2 if guidance > 1 else 1
    np.testing.assert_array_equal(seen[0].inputs["time_ids"], [[64, 48, 0, 0, 64, 48]] * rows)
    picture = pixels_from_image(ours.decode(latent))
    # A value that lies on the edge between two grey levels may round either way.
    difference = np.abs(picture.astype(int) - (expected * 255).round().astype(int))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


@torch.no_grad()
def test_embeddings_are_both_encoders_own(theirs: Any, folder: Path) -> None:
    ours = _ours(theirs, folder, *EULER)
    expected, _, pooled, _ = theirs.encode_prompt("a red circle", do_classifier_free_guidance=False)
    embeddings = ours.encode_text(["a red circle"])
    np.testing.assert_array_equal(embeddings.text_states, expected.numpy())
    np.testing.assert_array_equal(embeddings.pooled_states, pooled.numpy())
    assert embeddings.unread == ("",)


def test_no_negative_prompt_encodes_nothing(theirs: Any, folder: Path) -> None:
    ours = _ours(theirs, folder, *EULER)
    generate(ours, "a red circle", steps=1, guidance=5.0)
    session = ours.session(Component.TEXT_ENCODER_2)
    assert len(session.calls) == 1  # type: ignore[attr-defined] # a TorchSession
    states = ours.session(Component.UNET).calls[0]["text_states"]  # type: ignore[attr-defined] # as above
    assert not states[0].any()
    assert states[1].any()


def test_embeddings_without_a_pooled_prompt_are_refused(theirs: Any, folder: Path) -> None:
    ours = _ours(theirs, folder, *EULER)
    with pytest.raises(BundleError, match="have no pooled prompt, which SDXL takes"):
        ours.denoise(unit_noise(0, (1, 4, 16, 16)), Embeddings(np.zeros((1, TOKENS, 192), np.float32)))
