"""A CLIP folder is screened like a model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentc.compiler.clip_folder import open_clip
from latentc.errors import ModelError

FIX = "\nfix: write it with CLIPModel, CLIPTokenizer and CLIPImageProcessor's save_pretrained"


@pytest.fixture
def root(tiny_clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_clip, tmp_path / "clip"))


def refused(root: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_clip(root)
    return str(caught.value).replace(str(root), "CLIP")


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_sound_folder(tiny_clip: Path) -> None:
    clip = open_clip(tiny_clip)
    assert clip.side_pixels == 64
    assert clip.mean == (0.48145466, 0.4578275, 0.40821073)
    assert clip.std == (0.26862954, 0.26130258, 0.27577711)
    assert "logit_scale" in clip.weights.tensors


def test_digests_follow_the_content(root: Path) -> None:
    before = open_clip(root).digest
    assert open_clip(root).digest == before
    rewrite(root / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    assert open_clip(root).digest != before


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "preprocessor_config.json"]
)
def test_a_missing_file(root: Path, name: str) -> None:
    (root / name).unlink()
    assert refused(root) == f"CLIP/{name}: is missing{FIX}"


def test_no_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == (
        "CLIP: is no folder\nfix: name the folder of a CLIPModel, or leave clip out"
    )


def test_another_model(root: Path) -> None:
    rewrite(root / "config.json", model_type="siglip")
    assert refused(root) == f"CLIP/config.json: model_type: is 'siglip', 'clip' was expected{FIX}"


def test_settings_of_another_kind(root: Path) -> None:
    rewrite(root / "preprocessor_config.json", image_std=[1.0, "x", 2.0])
    assert refused(root) == (
        f"CLIP/preprocessor_config.json: image_std: is [1.0, 'x', 2.0], three numbers were expected{FIX}"
    )


def test_truncated_weights(root: Path) -> None:
    path = root / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert refused(root).startswith("CLIP/model.safetensors: is truncated: ")
