"""What families share: sessions open when needed, one at a time on small boards, and are closed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.runtime.small_bundle import write_small_bundle

from latentc.errors import BundleError, TargetError
from latentc.recipes.family import Component
from latentc.runtime.bundle import open_bundle
from latentc.runtime.generate import generate, open_pipeline
from latentc.runtime.pipeline import check_prediction, output_named
from latentc.runtime.session import Session, open_session
from latentc.runtime.stable_diffusion import StableDiffusion
from latentc.runtime.tokenize import open_tokenizer


@pytest.mark.parametrize("low_memory", [False, True])
def test_how_many_are_open_at_once(tmp_path: Path, low_memory: bool) -> None:
    write_small_bundle(tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    opened: list[Component] = []

    def open_and_note(component: Component) -> Session:
        opened.append(component)
        return open_session(bundle, component)

    pipeline = StableDiffusion(
        bundle.manifest, open_and_note, lambda name: open_tokenizer(bundle, name), low_memory=low_memory
    )
    with pipeline:
        generate(pipeline, "a red circle")
        assert opened == [Component.TEXT_ENCODER, Component.UNET, Component.VAE_DECODER]
        assert len(pipeline._sessions) == (1 if low_memory else 3)
        generate(pipeline, "a blue circle")
        assert len(opened) == (6 if low_memory else 3)
    assert pipeline._sessions == {}


def test_decode_undoes_the_scaling(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle")
    latent = np.random.default_rng(0).standard_normal((1, 4, 2, 3)).astype(np.float32)
    with open_pipeline(tmp_path / "bundle") as pipeline:
        image = pipeline.decode(latent)
        unscaled = pipeline.run(Component.VAE_DECODER, {"latent": latent / np.float32(0.5)})["image"]
    assert image.shape == (1, 3, 8, 12)
    np.testing.assert_array_equal(image, unscaled)


def test_nan_is_named_with_its_step() -> None:
    fine = np.ones(3, np.float32)
    assert check_prediction(Component.UNET, 2, fine) is fine
    with pytest.raises(TargetError, match="transformer: gives NaN or infinity at step 2"):
        check_prediction(Component.TRANSFORMER, 2, np.array([1.0, np.nan], np.float32))


def test_a_missing_output_is_named() -> None:
    outputs = {"a": np.zeros(1), "b": np.zeros(1)}
    assert output_named(Component.UNET, outputs, "a") is outputs["a"]
    with pytest.raises(BundleError, match="unet: has the outputs a, b, wanted prediction"):
        output_named(Component.UNET, outputs, "prediction")
