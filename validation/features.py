"""Features: what CLIP sees in a picture, through the reference's own ONNX graph."""

from __future__ import annotations

from types import TracebackType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from latentc.errors import BundleError
from latentc.runtime.onnxruntime_session import OnnxruntimeSession
from latentc.validation.reference import ClipReference, Floats

Feature: TypeAlias = "npt.NDArray[np.floating]"


class PictureFeatures:
    """CLIP's picture encoder, opened once.

    Args:
        clip: the graph and how it wants its pictures.
        threads: of onnxruntime; 0 takes one a physical core.

    Raises:
        BundleError: the graph is missing, or onnxruntime refuses it.
    """

    def __init__(self, clip: ClipReference, threads: int = 0) -> None:
        if not clip.vision_model.is_file():
            raise BundleError(str(clip.vision_model), "does not exist", "build the reference again")
        self._clip = clip
        self._session = OnnxruntimeSession("clip", str(clip.vision_model), threads=threads)

    def of_picture(self, picture: npt.NDArray[np.uint8]) -> Feature:
        """[F] float64 of length 1 for ``picture`` [H, W, 3] uint8; zeros stay zeros."""
        pixels = preprocess(picture, self._clip)
        features: Feature = self._session.run({"pixels": pixels})["features"][0].astype(np.float64)
        length = float(np.linalg.norm(features))
        return features / length if length > 0 else features

    def __enter__(self) -> PictureFeatures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()


def preprocess(picture: npt.NDArray[np.uint8], clip: ClipReference) -> Floats:
    """``picture`` [H, W, 3] uint8 as CLIP's graph takes it: [1, 3, side, side] float32."""
    image = Image.fromarray(picture)
    side = (clip.side_pixels, clip.side_pixels)
    if image.size != side:
        image = image.resize(side, Image.Resampling.BICUBIC)
    unit = np.asarray(image, dtype=np.float32) / np.float32(255)
    scaled = (unit - np.asarray(clip.mean, np.float32)) / np.asarray(clip.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)


def feature_distance(actual: Feature, reference: Feature) -> float:
    """1 - cosine of two features of length 1: 0 for equal ones, 2 at most."""
    return max(0.0, 1.0 - float(actual @ reference))


def clip_score(picture: Feature, text: Feature) -> float:
    """100 · max(cosine, 0) of a picture's and a text's feature, both of length 1 (Hessel et al. 2021)."""
    return 100.0 * max(0.0, float(picture @ text))
