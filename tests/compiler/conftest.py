"""Tiny models and their exports, made once a session: tracing takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny_models import (
    write_tiny_clip,
    write_tiny_flux,
    write_tiny_lora,
    write_tiny_stable_diffusion,
    write_tiny_stable_diffusion_xl,
)

from latentc.recipes.family import Component

ExportOf = Callable[[Path, Component], Path]


@pytest.fixture(scope="session")
def tiny_stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny") / "stable-diffusion")


@pytest.fixture(scope="session")
def tiny_stable_diffusion_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_stable_diffusion_xl(tmp_path_factory.mktemp("tiny") / "stable-diffusion-xl")


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_flux(tmp_path_factory.mktemp("tiny") / "flux")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture(scope="session")
def tiny_lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_lora(tmp_path_factory.mktemp("tiny") / "lora") / "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="session")
def export_of(tmp_path_factory: pytest.TempPathFactory) -> ExportOf:
    """The export artifact of a component of a model folder, made when first asked for."""
    made: dict[tuple[Path, Component], Path] = {}

    def export(root: Path, component: Component) -> Path:
        from latentc.compiler.model_folder import open_model
        from latentc.compiler.stages.export import Export

        if (root, component) not in made:
            model = open_model(root, read_values=False)
            folder = model.folder_of(component)
            out = tmp_path_factory.mktemp(f"export-{component}")
            stage = Export(model.family.name, str(component), folder.class_name, folder.config_json)
            stage.run({}, out, lambda _fraction, _words: None)
            made[root, component] = out
        return made[root, component]

    return export
