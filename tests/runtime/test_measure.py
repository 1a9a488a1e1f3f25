"""Measuring: medians of what a clock says, inputs of the right shapes, memory that was really used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.runtime.small_bundle import CHANNELS, TOKENS, WIDTH, write_small_bundle

from latentc.errors import UsageError
from latentc.recipes.family import Component
from latentc.runtime.bundle import open_bundle
from latentc.runtime.measure import measure_bundle, peak_memory_mib, reset_peak_memory, sample_inputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_every_component_is_measured(folder: Path) -> None:
    rows = measure_bundle(folder, runs=3, warmup=1)
    assert [row.component for row in rows] == [
        Component.TEXT_ENCODER,
        Component.UNET,
        Component.VAE_DECODER,
    ]
    for row in rows:
        assert 0 < row.latency_ms <= row.slowest_ms
        assert row.load_ms > 0
        assert row.memory_mib > 10  # Python with numpy and onnxruntime alone is more


def test_the_median_leaves_the_warm_up_out(folder: Path) -> None:
    seconds = iter([0.0, 0.5, 100, *(200, 200.1), *(300, 300.3), *(400, 400.2)] * 3)
    rows = measure_bundle(folder, runs=3, warmup=1, clock=lambda: float(next(seconds)))
    for row in rows:
        assert round(row.load_ms) == 500
        assert round(row.latency_ms) == 200
        assert round(row.slowest_ms) == 300


def test_inputs_have_the_pictures_size(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    inputs = sample_inputs(manifest, Component.UNET, batch=2)
    assert {name: array.shape for name, array in inputs.items()} == {
        "latent": (2, CHANNELS, 8, 6),
        "timestep": (2,),
        "text_states": (2, TOKENS, WIDTH),
    }
    tokens = sample_inputs(manifest, Component.TEXT_ENCODER, batch=1)["token_ids"]
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [[0] * TOKENS]


def test_memory_follows_what_is_used() -> None:
    reset_peak_memory()
    before = peak_memory_mib()
    block = np.ones(64 * 2**20, np.uint8)
    assert peak_memory_mib() - before > 0.9 * block.nbytes / 2**20 - 1


def test_no_runs(folder: Path) -> None:
    with pytest.raises(UsageError, match="--runs: 0 runs after 2\nfix: time at least 1 run"):
        measure_bundle(folder, runs=0)
