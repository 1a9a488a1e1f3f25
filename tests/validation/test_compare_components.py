import shutil
from pathlib import Path

import numpy as np
import pytest

from latentc.errors import BundleError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.family import Component
from latentc.runtime.bundle import Bundle
from latentc.runtime.generate import open_pipeline
from latentc.validation.compare_components import compare_components, lowest, samples_of
from latentc.validation.measured import Measured
from latentc.validation.reference import GoldenTensors, read_reference


def compare(bundle: Bundle, folder: Path) -> Measured:
    measured = Measured()
    with open_pipeline(bundle) as pipeline:
        compare_components(
            pipeline,
            read_reference(folder),
            bundle.family,
            measured,
            clock=lambda: 0.0,
            progress=lambda fraction, what: None,
        )
    return measured


def rewrite(folder: Path, component: str, **changes: np.typing.NDArray[np.float32]) -> None:
    path = folder / "components" / f"{component}.npz"
    with np.load(path) as archive:
        arrays = dict(archive) | {name.replace("__", "."): array for name, array in changes.items()}
    np.savez(path, **arrays)


@pytest.fixture
def folder(reference_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference_folder, tmp_path / "reference"))


def test_one_wrong_sample_is_the_worst_one(bundle: Bundle, folder: Path) -> None:
    with np.load(folder / "components" / "vae_decoder.npz") as archive:
        images = archive["output.image"]
    images[2] *= np.float32(1.1)
    rewrite(folder, "vae_decoder", output__image=images)
    values = compare(bundle, folder).values
    # the error is a tenth of the bundle's image, so 1/11 of the golden one: 20.83 dB
    assert values["vae_decoder", "worst_sqnr_db"] == pytest.approx(20.83, abs=0.01)
    # three of four samples have no error at all
    assert values["vae_decoder", "sqnr_db"] > values["vae_decoder", "worst_sqnr_db"] + 3
    assert 0 < values["vae_decoder", "relative_error"] < 1 / 11


def test_outputs_that_the_graph_does_not_have(bundle: Bundle, folder: Path) -> None:
    rewrite(folder, "unet", output__noise=np.zeros((24, 4, 8, 8), np.float32))
    with pytest.raises(BundleError) as caught:
        compare(bundle, folder)
    assert str(caught.value) == (
        "unet: has the outputs prediction, the reference has noise\nfix: build the reference again"
    )


def test_samples_that_do_not_match(bundle: Bundle, folder: Path) -> None:
    rewrite(folder, "unet", input__timestep=np.zeros(5, np.float32))
    with pytest.raises(BundleError) as caught:
        compare(bundle, folder)
    assert str(caught.value) == (
        "components/unet.npz: has tensors of 5, 24 samples, expected as many of each\n"
        "fix: build the reference again"
    )


def test_outputs_of_another_shape(bundle: Bundle, folder: Path) -> None:
    rewrite(folder, "unet", output__prediction=np.zeros((24, 4, 8, 9), np.float32))
    with pytest.raises(BundleError) as caught:
        compare(bundle, folder)
    assert str(caught.value) == (
        "unet.prediction: has shape [24, 4, 8, 8], the reference has [24, 4, 8, 9]\n"
        "fix: build the reference again"
    )


def test_tensors_without_b_go_to_every_sample_as_they_are() -> None:
    golden = GoldenTensors(
        {
            "latent": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
            "guidance": np.array([3.5, 4.0], np.float32),
            "image_ids": np.zeros((3, 3), np.float32),
        },
        {"prediction": np.zeros((2, 3, 4), np.float32)},
    )
    first, second = samples_of(Component.TRANSFORMER, golden, FLUX)
    assert (first["latent"].shape, second["guidance"].tolist()) == ((1, 3, 4), [4.0])
    assert second["image_ids"].shape == (3, 3)


def test_the_lowest_of_values_with_nan_is_nan() -> None:
    assert lowest([3.0, 1.0, 2.0]) == 1.0
    assert np.isnan(lowest([3.0, float("nan"), 2.0]))
