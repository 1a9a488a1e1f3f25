import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentc.errors import BundleError
from latentc.recipes.family import Component
from latentc.validation.reference import Reference, read_reference

FIX = "\nfix: build the reference again: latentc build RECIPE --out DIR"


@pytest.fixture
def folder(reference_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference_folder, tmp_path / "reference"))


def test_everything_is_there_in_its_shape(reference: Reference) -> None:
    assert reference.initial_latents().shape == (4, 4, 8, 8)
    assert reference.trajectory().shape == (2, 4, 4, 8, 8)
    assert reference.final_latents().shape == (4, 4, 8, 8)
    assert reference.step_noise() is None
    assert {name: ids.shape for name, ids in reference.token_ids().items()} == {"tokenizer": (4, 8)}
    assert set(reference.embeddings()) == {"text_states", "negative.text_states"}
    assert reference.picture(3).shape == (32, 32, 3)
    assert reference.components() == (Component.TEXT_ENCODER, Component.UNET, Component.VAE_DECODER)
    golden = reference.golden(Component.UNET)
    assert set(golden.inputs) == {"latent", "timestep", "text_states"}
    assert set(golden.outputs) == {"prediction"}
    clip = reference.clip()
    assert clip is not None
    assert (clip.side_pixels, clip.mean, clip.std) == (32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_noise_of_every_step(folder: Path) -> None:
    np.savez(folder / "step_noise.npz", noise=np.zeros((4, 2, 4, 8, 8), np.float32))
    noise = read_reference(folder).step_noise()
    assert noise is not None
    assert noise.shape == (4, 2, 4, 8, 8)


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "reference.json"
        data = json.loads(path.read_text())
        data.update(changes)
        path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))

    change.__name__ = ",".join(changes)
    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(format=3), "has format 3, this latentc reads format 1"),
        (edit(family="sdxl"), "names the unknown family 'sdxl'"),
        (edit(steps="20"), "is incomplete or mistyped: '20' where a whole number of 0 or more is expected"),
        (edit(prompts=["a", 1]), "is incomplete or mistyped: a number where a text is expected"),
        (edit(seeds=[1]), "has 4 prompts and 1 seeds, expected one seed a prompt and at least one prompt"),
        (edit(prompts=[], seeds=[]),
         "has 0 prompts and 0 seeds, expected one seed a prompt and at least one prompt"),
        (edit(trajectory_prompts=5), "trajectory_prompts is 5, expected 1…4"),
        (edit(trajectory_prompts=0), "trajectory_prompts is 0, expected 1…4"),
        (edit(steps=0), "steps is 0, expected at least 1"),
        (lambda folder: (folder / "reference.json").unlink(), "does not exist"),
        (lambda folder: (folder / "reference.json").write_text("[]"), "holds a list instead of an object"),
    ],
)  # fmt: skip
def test_a_table_of_contents_that_cannot_be(
    folder: Path, change: Callable[[Path], object], message: str
) -> None:
    change(folder)
    with pytest.raises(BundleError) as caught:
        read_reference(folder)
    assert str(caught.value) == f"{folder / 'reference.json'}: {message}{FIX}"


@pytest.mark.parametrize(
    ("file", "arrays", "read", "message"),
    [
        ("initial_latents.npz", {"noise": np.zeros((4, 4, 8, 8))}, Reference.initial_latents,
         "has the keys ['noise'], expected 'latents'"),
        ("trajectory.npz", {"latents": np.zeros((2, 3, 4, 8, 8))}, Reference.trajectory,
         "'latents' has shape [2, 3, 4, 8, 8], expected [2, 4, …, …, …]"),
        ("final_latents.npz", {"latents": np.zeros((4, 8, 8))}, Reference.final_latents,
         "'latents' has shape [4, 8, 8], expected [4, …, …, …]"),
        ("embeddings.npz", {"text_states": np.zeros((3, 8, 16))}, Reference.embeddings,
         "'text_states' is float64 [3, 8, 16], expected 4 rows"),
        ("token_ids.npz", {"negative.tokenizer": np.zeros((4, 8), np.int64)}, Reference.token_ids,
         "'negative.tokenizer' is int64 [4, 8], expected 1 rows"),
        ("components/unet.npz", {"latent": np.zeros(3)}, lambda r: r.golden(Component.UNET),
         "has a key 'latent', expected input.<tensor> or output.<tensor>"),
        ("components/unet.npz", {"input.latent": np.zeros(3)}, lambda r: r.golden(Component.UNET),
         "holds no inputs or no outputs"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(
    folder: Path,
    file: str,
    arrays: dict[str, np.typing.NDArray[np.float64]],
    read: Callable[[Reference], object],
    message: str,
) -> None:
    np.savez(folder / file, **arrays)  # type: ignore[arg-type] # numpy's stub takes it for allow_pickle
    with pytest.raises(BundleError) as caught:
        read(read_reference(folder))
    assert str(caught.value) == f"{folder / file}: {message}{FIX}"


def test_damaged_arrays_and_pickles_are_refused(folder: Path) -> None:
    reference = read_reference(folder)
    (folder / "final_latents.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(BundleError, match=r"final_latents\.npz: cannot be read: "):
        reference.final_latents()
    np.savez(folder / "trajectory.npz", latents=np.array([{"code": "runs"}], dtype=object))
    with pytest.raises(BundleError, match=r"trajectory\.npz: cannot be read: Object arrays cannot be loaded"):
        reference.trajectory()


def test_pictures_that_do_not_fit(folder: Path) -> None:
    reference = read_reference(folder)
    Image.new("RGB", (8, 9)).save(folder / "pictures" / "0000.png")
    with pytest.raises(BundleError) as caught:
        reference.picture(0)
    path = folder / "pictures" / "0000.png"
    assert str(caught.value) == f"{path}: is 8×9 pixels instead of 32×32{FIX}"
    path.write_bytes(b"no picture")
    with pytest.raises(BundleError, match=r"0000\.png: cannot be read as a picture: "):
        reference.picture(0)


def test_clip_s_settings_are_checked(folder: Path) -> None:
    path = folder / "clip" / "preprocess.json"
    path.write_text('{"side_pixels": 32, "mean": [0.5], "std": [1, 1, 1]}')
    with pytest.raises(BundleError) as caught:
        read_reference(folder).clip()
    assert str(caught.value) == (
        f"{path}: is incomplete or mistyped: not enough values to unpack (expected 3, got 1){FIX}"
    )
