"""CLIP's written view equals transformers' own, for prompts and for pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from latentc.compiler.clip_folder import open_clip
from latentc.compiler.clip_reference import write_clip
from latentc.validation.features import PictureFeatures
from latentc.validation.reference import ClipReference

PROMPTS = ("a red circle", "a blue square above a green triangle")


def test_features_equal_transformers(tiny_clip: Path, tmp_path: Path) -> None:
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    clip = open_clip(tiny_clip)
    write_clip(clip, PROMPTS, tmp_path)
    model = CLIPModel.from_pretrained(tiny_clip, dtype=torch.float32)
    tokens = CLIPTokenizer.from_pretrained(tiny_clip)(
        list(PROMPTS), padding=True, truncation=True, max_length=16, return_tensors="pt"
    )
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    unit = torch.from_numpy((picture.transpose(2, 0, 1)[None] / 255.0).astype(np.float32))
    mean, std = (torch.tensor(three).reshape(3, 1, 1) for three in (clip.mean, clip.std))
    with torch.no_grad():
        expected = model(**tokens, pixel_values=(unit - mean) / std)
    with np.load(tmp_path / "clip.npz") as written:
        text_features = written["text_features"]
    np.testing.assert_allclose(text_features, expected.text_embeds.numpy(), rtol=0, atol=1e-5)
    settings = json.loads((tmp_path / "clip" / "preprocess.json").read_text())
    assert settings == {"side_pixels": 64, "mean": list(clip.mean), "std": list(clip.std)}
    reference = ClipReference(
        text_features, tmp_path / "clip" / "vision" / "model.onnx", clip.side_pixels, clip.mean, clip.std
    )
    with PictureFeatures(reference) as features:
        seen = features.of_picture(picture)
    np.testing.assert_allclose(seen, expected.image_embeds[0].numpy(), rtol=0, atol=1e-5)
