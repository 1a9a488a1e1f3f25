from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latentc.errors import BundleError
from latentc.validation.features import PictureFeatures, clip_score, feature_distance, preprocess
from latentc.validation.reference import ClipReference, Reference


@pytest.fixture
def clip(reference: Reference) -> ClipReference:
    found = reference.clip()
    assert found is not None
    return found


def test_features_are_the_graph_s_own_and_of_length_one(clip: ClipReference) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with PictureFeatures(clip) as features:
        seen = features.of_picture(picture)
    # the test's graph means over fields of 8×8
    fields = (
        ((picture / 255 - 0.5) / 0.25).reshape(4, 8, 4, 8, 3).mean(axis=(1, 3)).transpose(2, 0, 1).ravel()
    )
    # onnxruntime sums in float32
    assert seen == pytest.approx(fields / np.linalg.norm(fields), abs=1e-5)
    assert np.linalg.norm(seen) == pytest.approx(1, abs=1e-12)  # float64


def test_other_sizes_are_resized(clip: ClipReference) -> None:
    pixels = preprocess(np.full((64, 48, 3), 255, np.uint8), clip)
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels.dtype == np.float32
    assert np.unique(pixels).tolist() == [2.0]  # (1 - 0.5) / 0.25


def test_a_graph_that_is_not_there(clip: ClipReference, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        PictureFeatures(replace(clip, vision_model=tmp_path / "model.onnx"))
    assert str(caught.value) == (f"{tmp_path / 'model.onnx'}: does not exist\nfix: build the reference again")


def test_distance_and_score() -> None:
    east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert (feature_distance(east, east), feature_distance(east, north)) == (0, 1)
    assert feature_distance(east, -east) == 2
    assert (clip_score(east, east), clip_score(east, -east)) == (100, 0)
