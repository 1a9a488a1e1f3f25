"""The gain of a linear is what its error does to the final latents, and measuring it leaves no trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latentc.compiler.model_folder import open_model
from latentc.compiler.original import Original
from latentc.compiler.sampling_options import SamplingOptions
from latentc.compiler.sensitivity import PERTURBATION, measure_gains
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


def measured(original: Original, units: Path, perturbation: float = PERTURBATION) -> dict[str, float]:
    units.mkdir(exist_ok=True)
    return measure_gains(original, PROMPTS, SEEDS, units, lambda _done, _words: None, perturbation)


def test_every_linear_has_its_gain_and_the_weights_are_as_before(original: Original, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in original.denoiser.state_dict().items()}
    gains = measured(original, tmp_path)
    linears = [name for name, part in original.denoiser.named_modules() if isinstance(part, torch.nn.Linear)]
    assert sorted(gains) == sorted(f"{name}.weight" for name in linears)
    assert all(gain >= 0 for gain in gains.values())
    assert any(gain > 0 for gain in gains.values())
    for name, value in original.denoiser.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_gain_foretells_what_a_perturbed_weight_does(original: Original, tmp_path: Path) -> None:
    """Twice the perturbation that was measured with gives four times the error: the gain is of squares."""
    gains = measured(original, tmp_path / "once")
    loudest = max(gains, key=lambda name: gains[name])
    again = measured(original, tmp_path / "twice", perturbation=0.04)
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


def test_prompts_that_do_not_fit_into_one_batch_count_as_well(
    sampling: SamplingOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Original(STABLE_DIFFUSION, replace(sampling, steps=1, guidance=1.0, height=32, width=32))
    together = measured(small, tmp_path / "together")
    monkeypatch.setattr("latentc.compiler.sampling_loop.MOST_TOGETHER", 1)
    apart = measured(small, tmp_path / "apart")
    (tmp_path / "first").mkdir()
    first = measure_gains(small, PROMPTS[:1], SEEDS[:1], tmp_path / "first", lambda _done, _words: None)
    loudest = max(together, key=lambda name: together[name])
    # the same sums in another order of float32 additions
    assert apart[loudest] == pytest.approx(together[loudest], rel=1e-3)
    assert apart[loudest] != pytest.approx(first[loudest], rel=1e-3)
