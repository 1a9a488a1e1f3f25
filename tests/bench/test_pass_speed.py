"""Every pass is measured, and no case is of a pass that is not."""

from __future__ import annotations

from pathlib import Path

from tests.bench.pass_speed import CASES, LAYERS, LORA, unmeasured

from latentc.passes.pass_text import pass_from_text


def test_every_pass_has_a_case() -> None:
    assert unmeasured() == set()


def test_cases_name_passes_and_layers(tmp_path: Path) -> None:
    (tmp_path / LORA).touch()
    for case in CASES:
        assert case.layer in LAYERS
        for text in (*case.before, case.step):
            pass_from_text(text.replace("FOLDER", str(tmp_path)))
