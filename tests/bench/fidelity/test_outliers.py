"""Outliers: inputs of linears grow spiky, and what the denoiser gives stays, in both architectures."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.bench.fidelity.families import SHAPES_FLUX, SHAPES_SD, Family
from tests.bench.fidelity.outliers import read_spikiness, with_outliers
from tests.tiny_models import write_tiny_flux, write_tiny_stable_diffusion


@pytest.mark.parametrize("family", [SHAPES_SD, SHAPES_FLUX], ids=["sd", "flux"])
def test_spikes_come_and_the_function_stays(family: Family, tmp_path: Path) -> None:
    write = write_tiny_flux if family.is_flux else write_tiny_stable_diffusion
    source = write(tmp_path / "plain")
    out = tmp_path / "spiky"
    with_outliers(family, source, out, seed=0)  # raises when outputs moved by more than 1e-5
    seen = read_spikiness(out)
    assert seen is not None
    # powers of two: at least half of the least that is aimed at, and no more than the most
    assert 25 < seen.channel_ratio_after[0] < 300
    assert seen.ratio_after[0] > 2 * seen.ratio_before[0]
    # Weights that get smaller than float16's normal numbers, and FLUX's bias of 1 + scale, lose a little.
    assert seen.moved < 1e-3
    assert (out / "model_index.json").is_file()


def test_a_finished_model_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "spiky"
    (tmp_path / "spiky.json").write_text('{"linears": []}')
    with_outliers(SHAPES_SD, tmp_path / "missing", out, seed=0)
    assert not out.exists()
