"""Pictures: from the decoder's output to uint8 and PNG, and back. The only file that knows Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentc.errors import TargetError, UsageError
from latentc.runtime.noise_schedule import Float32Array
from latentc.runtime.whole_file import whole_file


def pixels_from_image(image: Float32Array) -> NDArray[np.uint8]:
    """The decoder's output as pixels, rounded as diffusers rounds (half to even).

    Args:
        image: [B, 3, H, W] float32, -1…1; values beyond are clipped.

    Returns:
        [B, H, W, 3] uint8.

    Raises:
        TargetError: ``image`` holds NaN or infinity.
    """
    if not bool(np.isfinite(image).all()):
        raise TargetError(
            "vae_decoder",
            "gives NaN or infinity instead of a picture",
            "the target's float type is too narrow for this decoder; use one with float32",
        )
    unit = np.clip(image * np.float32(0.5) + np.float32(0.5), 0.0, 1.0)
    pixels: NDArray[np.uint8] = (unit * np.float32(255)).round().astype(np.uint8).transpose(0, 2, 3, 1)
    return pixels


def save_png(picture: NDArray[np.uint8], path: Path) -> None:
    """Write ``picture``, [H, W, 3] uint8, whole or not at all; same pixels and Pillow, same bytes.

    Raises:
        UsageError: ``path`` does not end in ``.png``, or cannot be written.
    """
    from PIL import Image

    if path.suffix.lower() != ".png":
        raise UsageError(str(path), "is no PNG file name", "let the name end in .png")
    try:
        with whole_file(path) as file:
            # No metadata and a fixed effort, so that nothing but the pixels enters the file.
            Image.fromarray(picture).save(file, format="PNG", compress_level=6)
    except OSError as error:
        raise UsageError(
            str(path), f"cannot be written: {error.strerror or error}", "choose another --out"
        ) from error


def load_picture(path: Path) -> NDArray[np.uint8]:
    """Read ``path`` as [H, W, 3] uint8; raises UsageError when it is no picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"), dtype=np.uint8)
    except OSError as error:
        raise UsageError(str(path), f"cannot be read as a picture: {error}", "name a PNG file") from error
