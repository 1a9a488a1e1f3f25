import base64
from io import BytesIO

import numpy as np
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image

from latentc.validation.embedded_picture import HEAT_LEVELS, data_uri, heat_gradient, heat_map


def opened(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


@given(hnp.arrays(np.uint8, (9, 7, 3)))
def test_small_pictures_keep_every_pixel(picture: np.typing.NDArray[np.uint8]) -> None:
    uri = data_uri(picture)
    assert uri.startswith("data:image/png;base64,")
    assert (np.asarray(opened(uri).convert("RGB")) == picture).all()


def test_large_pictures_shrink() -> None:
    uri = data_uri(np.full((600, 800, 3), 128, np.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    assert opened(uri).size == (384, 288)


def test_heat_rises_in_lightness_with_the_difference() -> None:
    original = np.zeros((1, 256, 3), np.uint8)
    result = original.copy()
    result[0, :, 1] = np.arange(256)
    heat = heat_map(result, original)
    lightness = heat[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness[: HEAT_LEVELS + 1]) >= -0.8).all()  # colours are rounded to whole levels
    assert (heat[0, HEAT_LEVELS:] == heat[0, HEAT_LEVELS]).all()
    assert (heat_map(original, result) == heat).all()


def test_the_legend_ends_in_the_map_s_own_colours() -> None:
    assert heat_gradient().startswith("linear-gradient(to right, rgb(13 12 24), ")
    assert heat_gradient().endswith("rgb(253 246 196))")
