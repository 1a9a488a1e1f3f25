"""Which runtime opens a component, and that nothing unchecked gets there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.small_bundle import CHANNELS, TOKENS, WIDTH, write_small_bundle

from latentc.errors import BundleError, TargetError, ToolMissing
from latentc.recipes.family import Component
from latentc.runtime.bundle import open_bundle, write_manifest
from latentc.runtime.onnxruntime_session import OnnxruntimeSession
from latentc.runtime.session import check_names, component_entry, open_session

INPUTS = {
    "latent": np.ones((2, CHANNELS, 4, 4), np.float32),
    "timestep": np.array([1.0, 500.0], np.float32),
    "text_states": np.ones((2, TOKENS, WIDTH), np.float32),
}


@pytest.mark.parametrize("target", ["onnx", "ort-mobile"])
@pytest.mark.parametrize("stand_in", [False, True])
def test_onnxruntime_targets_run_here(tmp_path: Path, target: str, stand_in: bool) -> None:
    write_small_bundle(tmp_path / "bundle", target)
    bundle = open_bundle(tmp_path / "bundle")
    with open_session(bundle, Component.UNET, threads=1, stand_in=stand_in) as session:
        assert isinstance(session, OnnxruntimeSession)
        result = session.run(INPUTS)["prediction"]
    assert result.shape == (2, CHANNELS, 4, 4)
    assert np.abs(result).max() <= 1  # tanh


def test_a_boards_target_runs_here_only_as_a_stand_in(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle", "jetson-orin-nano-8gb")
    bundle = open_bundle(tmp_path / "bundle")
    with pytest.raises(TargetError) as caught:
        open_session(bundle, Component.UNET)
    assert "unet: its engine is not built yet\nfix: on the board: latentc engine build" in str(caught.value)
    with open_session(bundle, Component.UNET, stand_in=True) as session:
        assert session.run(INPUTS)["prediction"].dtype == np.float32


def test_an_engine_alone_has_no_stand_in(tmp_path: Path) -> None:
    manifest = write_small_bundle(tmp_path / "bundle", "jetson-orin-nano-8gb")
    alone = {name: replace(entry, onnx="") for name, entry in manifest.components.items()}
    write_manifest(tmp_path / "bundle", replace(manifest, components=alone))
    with pytest.raises(BundleError, match="unet: carries no ONNX form to stand in for its engine"):
        open_session(open_bundle(tmp_path / "bundle"), Component.UNET, stand_in=True)


def test_a_component_that_is_not_there(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle", "onnx")
    bundle = open_bundle(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"this bundle has no transformer \(it has text_encoder, unet, vae"):
        component_entry(bundle, Component.TRANSFORMER)


def test_external_weights_are_hashed_first(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle", "onnx")
    bundle = open_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle/unet/model.onnx.data"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"unet/model\.onnx\.data: has SHA-256"):
        open_session(bundle, Component.UNET)
    with open_session(bundle, Component.VAE_DECODER):
        pass


def test_names() -> None:
    check_names("unet", ("a", "b"), {"b": np.zeros(1), "a": np.zeros(1)})
    with pytest.raises(BundleError, match="unet: takes the inputs a, b, was given a, c"):
        check_names("unet", ("b", "a"), {"c": np.zeros(1), "a": np.zeros(1)})


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_bundle(tmp_path / "bundle", "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ToolMissing, match="the package 'onnxruntime' is not installed\nfix: pip install"):
        open_session(open_bundle(tmp_path / "bundle"), Component.VAE_DECODER)
