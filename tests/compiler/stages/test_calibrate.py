"""Calibration samples are real inputs of every component, bounded in number and the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latentc.compiler.model_folder import open_model
from latentc.compiler.sampling_options import SamplingOptions
from latentc.compiler.stages.calibrate import Calibrate
from latentc.recipes.families.catalogue import family_named

PROMPTS = ("a red circle", "a blue square", "a green triangle")


def sampling(root: Path, scheduler: str = "ddim", guidance: float = 3.0) -> SamplingOptions:
    return SamplingOptions(root, open_model(root).digest, (), scheduler, 2, guidance, 64, 64)


def made(stage: Calibrate, out: Path) -> Path:
    said: list[float] = []
    out.mkdir(parents=True)
    stage.run({}, out, lambda fraction, _words: said.append(fraction))
    assert said == sorted(said)
    assert said[0] == 0.0
    assert said[-1] == 1.0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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


def test_rows_of_every_linear_of_the_denoiser(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    prompts, seeds = (*PROMPTS, "a red square"), (10, 11, 12, 13)
    stage = Calibrate("stable-diffusion", sampling(tiny_stable_diffusion), prompts, seeds, 2, rows=40)
    rows = made(stage, tmp_path / "first") / "unet" / "rows"
    again = made(stage, tmp_path / "second") / "unet" / "rows"
    assert contents(rows) == contents(again)
    fit = {path.name.removesuffix(".fit.npy"): np.load(path) for path in rows.glob("*.fit.npy")}
    weights = tensors_of(tiny_stable_diffusion / "unet")
    linears = {name for name, shape in weights.items() if name.endswith(".weight") and len(shape) == 2}
    assert fit.keys() == linears
    for name, found in fit.items():
        assert found.shape == (40, weights[name][1])
        assert np.isfinite(found).all()
        assert np.load(rows / f"{name}.held_out.npy").shape == (20, weights[name][1])


def tensors_of(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors.numpy import load_file

    (file,) = folder.glob("*.safetensors")
    return {name: tensor.shape for name, tensor in load_file(file).items()}
