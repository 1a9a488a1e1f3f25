"""A picture from a bundle on disk with onnxruntime, end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.runtime.small_bundle import write_small_bundle

from latentc.errors import BundleError, TargetError, ToolMissing, UsageError
from latentc.recipes.families.catalogue import FAMILIES
from latentc.runtime.bundle import open_bundle
from latentc.runtime.generate import PIPELINES, generate, open_pipeline
from latentc.runtime.noise import initial_latent
from latentc.runtime.pipeline import Step


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_every_family_runs() -> None:
    assert [name for name, _ in PIPELINES] == [family.name for family in FAMILIES if family.is_drawn]


def test_a_picture_of_the_manifests_size_and_steps(folder: Path) -> None:
    seen: list[Step] = []
    picture = generate(folder, "a red circle", observer=seen.append)
    assert picture.dtype == np.uint8
    assert picture.shape == (32, 24, 3)
    assert [step.timestep for step in seen] == [667.0, 334.0, 1.0]
    assert seen[0].inputs["latent"].shape == (2, 4, 8, 6)  # guidance 2: negative and positive
    np.testing.assert_array_equal(seen[0].inputs["latent"][1], initial_latent([0], 4, 8, 6)[0])
    assert picture.std() > 1  # not one flat colour


def test_the_same_picture_again_whoever_opens_it(folder: Path) -> None:
    first = generate(folder, "a red circle", seed=5)
    np.testing.assert_array_equal(generate(open_bundle(folder), "a red circle", seed=5), first)
    with open_pipeline(folder, threads=1) as pipeline:
        np.testing.assert_array_equal(generate(pipeline, "a red circle", seed=5), first)
        assert not np.array_equal(generate(pipeline, "a red circle", seed=6), first)
        assert not np.array_equal(generate(pipeline, "a blue square", seed=5), first)
        assert not np.array_equal(generate(pipeline, "a red circle", seed=5, negative_prompt="blue"), first)
        assert not np.array_equal(generate(pipeline, "a red circle", seed=5, guidance=4), first)
        assert not np.array_equal(generate(pipeline, "a red circle", seed=5, steps=2), first)


def test_what_the_model_does_not_see_is_told(folder: Path) -> None:
    told: list[str] = []
    generate(folder, "a red circle", tell=told.append)
    assert told == []
    generate(folder, "a red circle a red circle above", negative_prompt="a " * 9, tell=told.append)
    assert told == [
        "--prompt is longer than this model reads; it does not see: above",
        "--negative-prompt is longer than this model reads; it does not see: a a a",
    ]


def test_other_sizes(folder: Path) -> None:
    assert generate(folder, "a", height=16, width=40).shape == (16, 40, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 30}, "--height: is 30, wanted a multiple of 8\nfix: use 32"),
        ({"width": 0}, "--width: is 0, wanted a multiple of 8\nfix: use 8"),
        ({"guidance": -1.0}, "--guidance: is -1, wanted 0 or more\nfix: use 1 for none"),
        ({"guidance": float("nan")}, "--guidance: is nan, wanted 0 or more\nfix: use 1 for none"),
        ({"steps": 0}, "--steps: is 0, wanted at least 1\nfix: ask for 1 step or more"),
        ({"seed": -1}, f"--seed: is -1, wanted 0…{2**64 - 1}\nfix: choose a seed in that range"),
    ],
)
def test_impossible_wishes(folder: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        generate(folder, "a", **arguments)  # type: ignore[arg-type] # arguments by name
    assert str(caught.value) == message


def test_a_damaged_weight_is_found_before_it_draws(folder: Path) -> None:
    data = bytearray((folder / "unet/model.onnx.data").read_bytes())
    data[-1] ^= 1
    (folder / "unet/model.onnx.data").write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"unet/model\.onnx\.data: has SHA-256"):
        generate(folder, "a")


def test_a_boards_bundle_draws_here_only_as_a_stand_in(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "jetson", "jetson-orin-nano-8gb")
    write_small_bundle(tmp_path / "onnx", "onnx")
    with pytest.raises((TargetError, ToolMissing)):
        generate(tmp_path / "jetson", "a red circle")
    with open_pipeline(tmp_path / "jetson", stand_in=True) as pipeline:
        half = generate(pipeline, "a red circle")
    # The same graphs in float16 and float32; tanh keeps every prediction within 1.
    difference = np.abs(half.astype(int) - generate(tmp_path / "onnx", "a red circle").astype(int))
    assert difference.mean() < 1
