"""CLIP folder: a CLIPModel on disk that judges pictures, screened like a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.compiler.model_folder import digest_of_digests, read_json, refuse_links, sha256_of
from latentc.compiler.safetensors_file import SafetensorsFile, read_safetensors
from latentc.errors import ModelError

if TYPE_CHECKING:
    from latentc.runtime.manifest import Json

_AGAIN = "write it with CLIPModel, CLIPTokenizer and CLIPImageProcessor's save_pretrained"


@dataclass(frozen=True)
class ClipFolder:
    """A screened CLIPModel.

    Args:
        root: the folder.
        weights: its safetensors file.
        side_pixels: height and width of what its picture encoder takes.
        mean: of the three channels, subtracted from 0…1 values.
        std: of the three channels, divided by after that.
    """

    root: Path
    weights: SafetensorsFile
    side_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every file that is read, in hexadecimal."""
        names = [path.name for path in self.root.iterdir() if path.suffix in (".json", ".txt")]
        paths = [self.root / name for name in (*names, self.weights.path.name)]
        return digest_of_digests({path.name: sha256_of(path) for path in paths})


def open_clip(root: Path) -> ClipFolder:
    """Screen the CLIPModel in ``root``.

    Raises:
        ModelError: something is missing, damaged or not a CLIPModel; names the file.
    """
    if not root.is_dir():
        raise ModelError(str(root), "is no folder", "name the folder of a CLIPModel, or leave clip out")
    refuse_links(root)
    config_path = root / "config.json"
    config = read_json(config_path, _AGAIN)
    if config.get("model_type") != "clip":
        raise ModelError(
            f"{config_path}: model_type", f"is {config.get('model_type')!r}, 'clip' was expected", _AGAIN
        )
    if not (root / "tokenizer.json").is_file():
        raise ModelError(str(root / "tokenizer.json"), "is missing", _AGAIN)
    weights_path = root / "model.safetensors"
    if not weights_path.is_file():
        raise ModelError(str(weights_path), "is missing", _AGAIN)
    weights = read_safetensors(weights_path)
    weights.sha256_of_finite()
    vision = config.get("vision_config")
    side = vision.get("image_size", 224) if isinstance(vision, dict) else None
    if not isinstance(side, int):
        raise ModelError(
            f"{config_path}: vision_config.image_size", f"is {side!r}, pixels were expected", _AGAIN
        )
    preprocess_path, preprocess = _preprocessing(root)
    return ClipFolder(
        root,
        weights,
        side,
        _three(preprocess_path, "image_mean", preprocess.get("image_mean")),
        _three(preprocess_path, "image_std", preprocess.get("image_std")),
    )


def _preprocessing(root: Path) -> tuple[Path, Mapping[str, Json]]:
    """How pictures are prepared: transformers 5 writes it into processor_config.json, older ones alone."""
    path = root / "processor_config.json"
    if path.is_file():
        inside = read_json(path, _AGAIN).get("image_processor")
        if isinstance(inside, dict):
            return path, inside
    path = root / "preprocessor_config.json"
    return path, read_json(path, _AGAIN)


def _three(path: Path, key: str, value: Json) -> tuple[float, float, float]:
    if isinstance(value, list) and len(value) == 3:
        numbers = [float(item) for item in value if isinstance(item, int | float)]
        if len(numbers) == 3:
            return numbers[0], numbers[1], numbers[2]
    raise ModelError(f"{path}: {key}", f"is {value!r}, three numbers were expected", _AGAIN)
