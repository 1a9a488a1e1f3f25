"""Our loop against StableDiffusionPipeline: same latents and prompts in, same latents and picture out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tests.runtime.torch_sessions import TorchComponents, manifest_of, unit_noise
from tests.tiny_models import TOKENS, write_tiny_stable_diffusion

from latentc.errors import TargetError, UsageError
from latentc.recipes.family import Component
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.picture import pixels_from_image
from latentc.runtime.pipeline import Embeddings, Step
from latentc.runtime.stable_diffusion import StableDiffusion

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:diffusers"
)

# The modules are the very same torch modules in float32, so the only differences are the schedule's last
# bits (1e-6 a step, tests/runtime/test_scheduler.py), which an untrained UNet passes on without damping.
LATENT_TOLERANCE = 1e-5

BETAS: dict[str, Json] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS: tuple[tuple[str, dict[str, Json]], ...] = (
    ("DDIMScheduler", {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    ("EulerDiscreteScheduler", {**BETAS, "timestep_spacing": "leading", "steps_offset": 1}),
    ("LCMScheduler", {**BETAS}),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture
def theirs(folder: Path) -> Any:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _ours(theirs: Any, folder: Path, name: str, config: dict[str, Json]) -> StableDiffusion:
    theirs.scheduler = getattr(diffusers, name)(**config)
    components = TorchComponents(theirs, folder, {"tokenizer": TOKENS})
    manifest = manifest_of(theirs, components, SchedulerEntry(name, config))
    return StableDiffusion(manifest, components.open_session, components.open_tokenizer)


@pytest.mark.parametrize(("name", "config"), SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_same_latents_and_picture(
    theirs: Any, folder: Path, name: str, config: dict[str, Json], guidance: float
) -> None:
    ours = _ours(theirs, folder, name, config)
    prompts = ["a red circle above a blue square", "a green triangle"]
    steps, shape = 5, (2, 4, 16, 16)
    noise = unit_noise(3, shape)
    trajectory: list[np.typing.NDArray[np.float32]] = []

    def record(_: Any, index: int, timestep: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        trajectory.append(values["latents"].numpy().copy())
        return values

    arguments: dict[str, Any] = {
        "prompt": prompts,
        "negative_prompt": ["small", ""],
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "latents": torch.from_numpy(noise),
        "generator": torch.Generator().manual_seed(5),
        "callback_on_step_end": record,
    }
    expected = theirs(**arguments, output_type="np").images
    step_noise = torch.Generator().manual_seed(5)
    seen: list[Step] = []
    embeddings = ours.encode_text(prompts)
    negative = ours.encode_text(["small", ""])
    latent = ours.denoise(
        noise,
        embeddings,
        negative=negative,
        steps=steps,
        guidance=guidance,
        step_noise=lambda _: torch.randn(shape, generator=step_noise).numpy(),
        observer=seen.append,
    )
    assert [step.index for step in seen] == list(range(steps))
    for step, theirs_latent in zip(seen, trajectory, strict=True):
        scale = float(np.abs(theirs_latent).max())
        np.testing.assert_allclose(step.latent, theirs_latent, rtol=0, atol=LATENT_TOLERANCE * scale)
    assert seen[0].inputs["latent"].shape[0] == (4 if guidance > 1 else 2)
    picture = pixels_from_image(ours.decode(latent))
    # A value that lies on the edge between two grey levels may round either way.
    difference = np.abs(picture.astype(int) - (expected * 255).round().astype(int))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


@torch.no_grad()
def test_embeddings_are_the_encoders_own(theirs: Any, folder: Path) -> None:
    ours = _ours(theirs, folder, *SCHEDULERS[0])
    expected, _ = theirs.encode_prompt("a red circle", "cpu", 1, False)
    embeddings = ours.encode_text(["a red circle"])
    np.testing.assert_array_equal(embeddings.text_states, expected.numpy())
    assert embeddings.unread == ("",)


def test_a_prompt_that_is_too_long_says_what_it_does_not_see(theirs: Any, folder: Path) -> None:
    ours = _ours(theirs, folder, *SCHEDULERS[0])
    prompt = " ".join(["red"] * 20)
    (unread,) = ours.encode_text([prompt]).unread
    assert prompt.endswith(unread)
    assert len(theirs.tokenizer(prompt.removesuffix(unread)).input_ids) == TOKENS


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 3, 16, 16), "wanted [B, 4, h, w]"), ((1, 4, 15, 16), "wanted multiples of 2")],
)
def test_a_latent_of_another_space_is_refused(
    theirs: Any, folder: Path, shape: tuple[int, ...], words: str
) -> None:
    ours = _ours(theirs, folder, *SCHEDULERS[0])
    with pytest.raises(UsageError) as caught:
        ours.denoise(np.zeros(shape, np.float32), Embeddings(np.zeros((1, TOKENS, 64), np.float32)))
    assert words in str(caught.value)


def test_guidance_without_a_negative_is_refused(theirs: Any, folder: Path) -> None:
    ours = _ours(theirs, folder, *SCHEDULERS[0])
    with pytest.raises(UsageError, match="negative: is missing, and guidance is 4"):
        ours.denoise(np.zeros((1, 4, 16, 16), np.float32), ours.encode_text(["a"]), guidance=4.0)


def test_missing_step_noise_is_refused(theirs: Any, folder: Path) -> None:
    ours = _ours(theirs, folder, *SCHEDULERS[2])
    with pytest.raises(UsageError, match="step_noise: LCMScheduler takes fresh noise"):
        ours.denoise(np.zeros((1, 4, 16, 16), np.float32), ours.encode_text(["a"]), guidance=1.0)


def test_a_denoiser_that_overflows_is_named(theirs: Any, folder: Path) -> None:
    ours = _ours(theirs, folder, *SCHEDULERS[0])
    session = ours.session(Component.UNET)
    session.call = lambda x: x["latent"] * float("inf")  # type: ignore[attr-defined] # a TorchSession
    with pytest.raises(TargetError, match="unet: gives NaN or infinity at step 0"):
        ours.denoise(unit_noise(0, (1, 4, 16, 16)), ours.encode_text(["a"]), guidance=1.0)
