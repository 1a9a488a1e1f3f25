"""Sampling options are plain, and every scheduler that a recipe can name exists on both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

from latentc.compiler.sampling_options import SCHEDULER_CLASSES, LoraFile, SamplingOptions
from latentc.recipes.recipe import Sampling
from latentc.runtime.scheduler import SCHEDULERS

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


def test_every_scheduler_of_a_recipe_is_known_to_diffusers_and_to_the_runtime() -> None:
    import diffusers

    assert set(SCHEDULER_CLASSES) == set(get_args(Sampling.model_fields["scheduler"].annotation))
    for class_name in SCHEDULER_CLASSES.values():
        assert hasattr(diffusers, class_name)
    assert set(SCHEDULER_CLASSES.values()) <= {kind.name for kind in SCHEDULERS}
