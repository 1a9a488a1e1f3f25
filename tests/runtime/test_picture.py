"""Pictures: rounded as diffusers rounds, the same bytes for the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given
from hypothesis import strategies as st

from latentc.errors import TargetError, UsageError
from latentc.runtime.picture import load_picture, pixels_from_image, save_png


@given(st.integers(0, 2**32 - 1))
def test_rounds_as_diffusers(seed: int) -> None:
    image = np.random.default_rng(seed).normal(0, 0.8, (2, 3, 4, 5)).astype(np.float32)
    image.flat[:5] = [-1.0, 1.0, -7.0, 7.0, 0.0]
    expected = VaeImageProcessor().postprocess(torch.from_numpy(image.copy()), output_type="pil")
    np.testing.assert_array_equal(pixels_from_image(image), np.stack([np.array(one) for one in expected]))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    save_png(picture, tmp_path / "one.png")
    save_png(picture, tmp_path / "two.png")
    np.testing.assert_array_equal(load_picture(tmp_path / "one.png"), picture)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_no_picture(value: float) -> None:
    image = np.zeros((1, 3, 2, 2), np.float32)
    image[0, 1, 0, 0] = value
    with pytest.raises(TargetError, match="vae_decoder: gives NaN or infinity instead of a picture"):
        pixels_from_image(image)


def test_files_that_cannot_be(tmp_path: Path) -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(UsageError, match="is no PNG file name"):
        save_png(picture, tmp_path / "picture.jpg")
    with pytest.raises(UsageError, match="cannot be written"):
        save_png(picture, tmp_path / "missing" / "picture.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        load_picture(tmp_path / "text.png")
