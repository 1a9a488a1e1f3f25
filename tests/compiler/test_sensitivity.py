"""The gain of a linear is what its error does to the final latents, and measuring it leaves no trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from latentc.compiler.model_folder import open_model
from latentc.compiler.original import Original
from latentc.compiler.sampling_options import SamplingOptions
from latentc.compiler.sensitivity import PROBES, measure_gains
from latentc.compiler.stages.sensitivity import Sensitivity
from latentc.passes.layer_gains import GAINS_FILE
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.runtime import noise

PROMPTS = ("a red circle", "a blue square")
SEEDS = (5, 6)


@pytest.fixture(scope="module")
def sampling(tiny_stable_diffusion: Path) -> SamplingOptions:
    model = open_model(tiny_stable_diffusion, read_values=False)
    return SamplingOptions(model.root, model.digest, (), "ddim", 3, 3.0, 64, 64)


@pytest.fixture(scope="module")
def original(sampling: SamplingOptions) -> Original:
    return Original(STABLE_DIFFUSION, sampling)


def measured(original: Original, units: Path, probes: int = PROBES) -> dict[str, float]:
    units.mkdir(exist_ok=True)
    return measure_gains(original, PROMPTS, SEEDS, units, lambda _done, _words: None, probes)


def final_latents(original: Original) -> torch.Tensor:
    negative = original.embed(original.token_ids([""])) if original.is_guided else None
    first = torch.from_numpy(noise.initial_latent(SEEDS, *original.latent_shape))

    def step_noise(step: int) -> torch.Tensor:
        return torch.from_numpy(noise.step_noise(SEEDS, step, *original.latent_shape))

    embeddings = original.embed(original.token_ids(PROMPTS))
    return original.denoise(first, embeddings, negative, step_noise, lambda call: None).double()


def gain_by_drawing(original: Original, name: str, draws: int) -> float:
    """The same number from its definition: noise on the weight, and the prompts drawn again."""
    part = original.denoiser.get_submodule(name.removesuffix(".weight"))
    assert isinstance(part, torch.nn.Linear)
    outputs: list[torch.Tensor] = []
    given_bias: Any = part.bias
    bias = 0 if given_bias is None else given_bias.data
    handle = part.register_forward_hook(
        lambda module, given, result: outputs.append((result - bias).double())
    )
    exact, wanted = final_latents(original), [*outputs]
    kept = part.weight.data
    moved = local = 0.0
    for seed in range(draws):
        drawn = torch.randn(kept.shape, generator=torch.Generator().manual_seed(seed))
        part.weight.data = kept + 1e-3 * drawn * kept.abs().amax(dim=1, keepdim=True)
        outputs.clear()
        moved += float((final_latents(original) - exact).square().sum() / exact.square().sum())
        # of the first call alone: later inputs have moved too
        local += float((outputs[0] - wanted[0]).square().sum() / wanted[0].square().sum())
    part.weight.data = kept
    handle.remove()
    return moved / local


def test_every_linear_has_its_gain_and_the_weights_are_as_before(original: Original, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in original.denoiser.state_dict().items()}
    gains = measured(original, tmp_path)
    linears = [name for name, part in original.denoiser.named_modules() if isinstance(part, torch.nn.Linear)]
    assert sorted(gains) == sorted(f"{name}.weight" for name in linears)
    assert all(gain >= 0 for gain in gains.values())
    assert any(gain > 0 for gain in gains.values())
    for name, value in original.denoiser.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "lcm"])
def test_a_gain_is_what_noise_on_the_weight_does(
    sampling: SamplingOptions, tmp_path: Path, scheduler: str
) -> None:
    # of one call, so that the error of the output is that of the weight alone
    guidance = 1.0 if scheduler == "lcm" else 3.0
    small = replace(sampling, scheduler=scheduler, steps=1, guidance=guidance, height=32, width=32)
    one = Original(STABLE_DIFFUSION, small)
    gains = measured(one, tmp_path, probes=16)
    loudest = sorted(gains, key=lambda name: -gains[name])[:2]
    for name in loudest:
        assert gains[name] == pytest.approx(gain_by_drawing(one, name, 8), rel=0.6), name


def test_what_happens_in_all_steps_counts(original: Original, tmp_path: Path) -> None:
    gains = measured(original, tmp_path, probes=8)
    loudest = max(gains, key=lambda name: gains[name])
    assert gains[loudest] == pytest.approx(gain_by_drawing(original, loudest, 8), rel=0.6)


def test_gradients_leave_no_trace(original: Original, tmp_path: Path) -> None:
    before = [parameter.requires_grad for parameter in original.denoiser.parameters()]
    measured(original, tmp_path, probes=1)
    assert [parameter.requires_grad for parameter in original.denoiser.parameters()] == before
    assert all(parameter.grad is None for parameter in original.denoiser.parameters())


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
    together = measured(small, tmp_path / "together", probes=16)
    monkeypatch.setattr("latentc.compiler.batches.MOST_TOGETHER", 1)
    apart = measured(small, tmp_path / "apart", probes=16)
    (tmp_path / "first").mkdir()
    first = measure_gains(small, PROMPTS[:1], SEEDS[:1], tmp_path / "first", lambda _done, _words: None, 16)
    loudest = max(together, key=lambda name: together[name])
    # estimates of the same number, each with its own gradients
    assert apart[loudest] == pytest.approx(together[loudest], rel=0.4)
    assert apart[loudest] != pytest.approx(first[loudest], rel=1e-3)
