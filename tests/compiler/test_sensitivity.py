"""The gain of a linear is what its error does to the final latents, and measuring it leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from latentc.compiler.model_folder import open_model
from latentc.compiler.original import Original
from latentc.compiler.sampling_options import SamplingOptions
from latentc.compiler.sensitivity import measure_gains
from latentc.compiler.stages.sensitivity import Sensitivity
from latentc.passes.layer_gains import GAINS_FILE
from latentc.recipes.family import STABLE_DIFFUSION

PROMPTS = ("a red circle", "a blue square")
SEEDS = (5, 6)


@pytest.fixture(scope="module")
def sampling(tiny_stable_diffusion: Path) -> SamplingOptions:
    model = open_model(tiny_stable_diffusion, read_values=False)
    return SamplingOptions(model.root, model.digest, (), "ddim", 3, 3.0, 64, 64)


@pytest.fixture(scope="module")
def original(sampling: SamplingOptions) -> Original:
    return Original(STABLE_DIFFUSION, sampling)


def test_every_linear_has_its_gain_and_the_weights_are_as_before(original: Original) -> None:
    before = {name: value.clone() for name, value in original.denoiser.state_dict().items()}
    gains = measure_gains(original, PROMPTS, SEEDS, lambda _done, _words: None)
    linears = [name for name, part in original.denoiser.named_modules() if isinstance(part, torch.nn.Linear)]
    assert sorted(gains) == sorted(f"{name}.weight" for name in linears)
    assert all(gain >= 0 for gain in gains.values())
    assert any(gain > 0 for gain in gains.values())
    for name, value in original.denoiser.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_gain_foretells_what_a_perturbed_weight_does(original: Original) -> None:
    """Twice the perturbation that was measured with gives four times the error: the gain is of squares."""
    gains = measure_gains(original, PROMPTS, SEEDS, lambda _done, _words: None)
    loudest = max(gains, key=lambda name: gains[name])
    again = measure_gains(original, PROMPTS, SEEDS, lambda _done, _words: None, perturbation=0.04)
    assert again[loudest] == pytest.approx(gains[loudest], rel=0.1)  # what is left of proportion at 4 %


def test_the_stage_writes_the_same_bytes_twice(sampling: SamplingOptions, tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        stage = Sensitivity(STABLE_DIFFUSION.name, sampling, PROMPTS[:1], SEEDS[:1])
        stage.run({}, tmp_path / name, lambda _done, _words: None)
        written.append((tmp_path / name / GAINS_FILE).read_bytes())
    assert written[0] == written[1]
    assert json.loads(written[0])
