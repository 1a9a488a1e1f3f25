"""Sampling options are plain, and every scheduler that a recipe can name exists on both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from latentc.compiler.sampling_options import SCHEDULER_CLASSES, LoraFile, SamplingOptions
from latentc.compiler.stage import Step
from latentc.compiler.stages.calibrate import Calibrate
from latentc.compiler.stages.reference import Reference
from latentc.compiler.stages.sensitivity import Sensitivity
from latentc.compiler.toolchain import threads, versions
from latentc.recipes.recipe import Sampling
from latentc.runtime.scheduler import SCHEDULERS

if TYPE_CHECKING:
    from latentc.runtime.manifest import Json

OPTIONS = SamplingOptions(
    Path("/models/a"), "0a", (LoraFile(Path("/loras/b"), "0b", 0.5),), "ddim", 20, 4.0, 64, 96, "green"
)


def test_identity_is_content_and_not_place() -> None:
    moved = replace(
        OPTIONS, model_root=Path("/elsewhere"), loras=(replace(OPTIONS.loras[0], path=Path("/elsewhere")),)
    )
    assert moved.identity() == OPTIONS.identity()
    assert OPTIONS.identity() == {
        "model": "0a",
        "loras": [{"sha256": "0b", "scale": 0.5}],
        "scheduler": "ddim",
        "steps": 20,
        "guidance": 4.0,
        "height": 64,
        "width": 96,
        "negative_prompt": "green",
    }


def test_what_draws_is_in_each_digest_under_the_same_keys() -> None:
    """Written out, so that a change of the shared part cannot move every digest unseen."""
    drawing: dict[str, Json] = {
        "family": "flux",
        "sampling": OPTIONS.identity(),
        "prompts": ["one", "two"],
        "seeds": [3, 4],
        "toolchain": dict(versions("torch", "diffusers", "transformers", "numpy", "pillow", "peft")),
        "threads": threads(),
    }
    stated = ("flux", OPTIONS, ("one", "two"), (3, 4))
    assert Sensitivity(*stated).options() == drawing
    assert Calibrate(*stated, 5, rows=6).options() == drawing | {"samples": 5, "rows": 6}
    assert Reference(*stated, 7, None, "0c").options() == drawing | {"trajectory_prompts": 7, "clip": "0c"}
    plain = Sensitivity("flux", replace(OPTIONS, loras=()), ("one", "two"), (3, 4)).options()
    tools = plain["toolchain"]
    assert isinstance(tools, dict)
    assert "peft" not in tools


def test_the_digest_of_a_drawing_stage_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of users hold results under these: another digest makes hours of work anew."""
    monkeypatch.setattr("latentc.compiler.sampling_options.threads", lambda: 2)
    monkeypatch.setattr(
        "latentc.compiler.sampling_options.versions", lambda *names: dict.fromkeys(names, "1")
    )
    stated = ("flux", OPTIONS, ("one", "two"), (3, 4))
    found = {
        stage.name: Step("any", stage, {}).digest
        for stage in (Calibrate(*stated, 5, rows=6), Sensitivity(*stated), Reference(*stated, 7, None, "0c"))
    }
    assert found == {
        "calibrate": "4ae8de063ee5f6103ee795134674fb960112710dcd7d1c334ec0bd06f3ab0d63",
        "sensitivity": "b2a1899eb81179424d12bc4c57ffef256e0b8dc6d6e08482c26b0e273aa5b5c8",
        "reference": "e393484144bedfe6443a8328ad1e06de5915da5ecd37b23bce7b940cecb19a60",
    }


def test_what_a_gpu_draws_is_not_taken_for_what_the_cpu_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Sensitivity("flux", OPTIONS, ("one", "two"), (3, 4))
    on_cpu = stage.options()
    assert "accelerator" not in on_cpu
    monkeypatch.setattr("latentc.compiler.sampling_options.accelerator", lambda: "Some GPU")
    assert stage.options() == on_cpu | {"accelerator": "Some GPU"}


def test_every_scheduler_of_a_recipe_is_known_to_diffusers_and_to_the_runtime() -> None:
    import diffusers

    assert set(SCHEDULER_CLASSES) == set(get_args(Sampling.model_fields["scheduler"].annotation))
    for class_name in SCHEDULER_CLASSES.values():
        assert hasattr(diffusers, class_name)
    assert set(SCHEDULER_CLASSES.values()) <= {kind.name for kind in SCHEDULERS}
