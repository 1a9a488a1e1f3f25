"""Pictures inside the HTML report: data URIs, and the heat map of a difference."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

HEAT_LEVELS = 96
"""The difference, in levels of 255, at which the heat map is brightest; one scale for all pictures."""

_SHOWN_PIXELS = 384
"""Pictures are embedded no larger than this; 128 pictures of 1024 pixels as they are would make 200 MB."""

# dark to bright with steadily rising lightness, so that it also reads in grey
_HEAT = np.array(
    [
        (13, 12, 24),
        (52, 23, 92),
        (118, 30, 108),
        (184, 48, 84),
        (232, 96, 48),
        (250, 170, 52),
        (253, 246, 196),
    ],
    dtype=np.float64,
)


def data_uri(picture: npt.NDArray[np.uint8]) -> str:
    """``picture`` [H, W, 3] as a data URI: PNG as it is when small, else a JPEG of at most 384 pixels."""
    image = Image.fromarray(picture)
    buffer = BytesIO()
    if max(image.size) <= _SHOWN_PIXELS // 2:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((_SHOWN_PIXELS, _SHOWN_PIXELS), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=88, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def heat_map(result: npt.NDArray[np.uint8], original: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Where and how much two pictures [H, W, 3] differ: the largest channel difference, as a colour."""
    difference = np.abs(result.astype(np.int16) - original.astype(np.int16)).max(axis=2)
    share = np.minimum(difference / HEAT_LEVELS, 1.0)
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(share, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_gradient() -> str:
    """The heat map's colours as a CSS gradient, for its legend."""
    colours = ", ".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in _HEAT)
    return f"linear-gradient(to right, {colours})"
