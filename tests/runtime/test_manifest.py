"""The manifest reads back as it was written, in canonical bytes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from latentc.runtime.manifest import Manifest, manifest_from_json, manifest_to_json

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


@given(st.dictionaries(names, names, max_size=4), names, st.floats(allow_nan=False, allow_infinity=False))
def test_a_manifest_reads_back_as_it_was_written(toolchain: dict[str, str], name: str, number: float) -> None:
    text = json.dumps(
        {
            "name": name,
            "target": "onnx",
            "family": "flux",
            "runtime": "onnxruntime",
            "components": {},
            "tokenizers": {},
            "scheduler": {"name": "DDIMScheduler", "config": {"beta_start": number}},
            "sampling": {"steps": 4, "guidance": number, "height": 64, "width": 64},
            "latent": {"channels": 4, "downscale": 8, "scaling_factor": number, "shift_factor": 0.0},
            "recipe": {},
            "toolchain": toolchain,
            "simulated": [name],
            "files": {},
            "format": 1,
        }
    )
    manifest: Manifest = manifest_from_json(text)
    assert not manifest.zeroes_empty_negative  # bundles from before there was such a key are read
    again = manifest_from_json(manifest_to_json(manifest))
    assert again == manifest
    assert manifest_to_json(again) == manifest_to_json(manifest)
