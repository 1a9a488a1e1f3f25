"""Flat modules have no weights, and take the family's tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentc.compiler.flat import flat_component, module_on_meta, on_meta
from latentc.compiler.model_folder import open_model
from latentc.errors import ModelError
from latentc.recipes.family import Component


def test_a_module_from_its_config_alone_has_no_storage_and_real_buffers(tiny_stable_diffusion: Path) -> None:
    folder = open_model(tiny_stable_diffusion, read_values=False).folder_of(Component.TEXT_ENCODER)
    module = module_on_meta(folder.class_name, folder.config)
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
    assert not module.training
    buffers = dict(module.named_buffers())
    assert buffers["embeddings.position_ids"].tolist() == [list(range(16))]


def test_examples_have_distinct_sizes_and_lose_their_storage(tiny_stable_diffusion: Path) -> None:
    model = open_model(tiny_stable_diffusion, read_values=False)
    folder = model.folder_of(Component.UNET)
    module = module_on_meta(folder.class_name, folder.config)
    flat = flat_component(model.family.spec(Component.UNET), module)
    assert [tuple(example.shape) for example in flat.examples] == [(2, 4, 8, 12), (2,), (2, 7, 64)]
    bare, buffers = on_meta(flat)
    assert {example.device.type for example in bare.examples} == {"meta"}
    assert buffers == {}


def test_a_class_that_is_no_model_is_never_made() -> None:
    with pytest.raises(ModelError) as caught:
        module_on_meta("DDIMScheduler", {})
    assert str(caught.value) == (
        "DDIMScheduler: is no model of diffusers or transformers\nfix: use a model that diffusers can load"
    )


@pytest.mark.parametrize(
    ("key", "value"), [("addition_embed_type", "text_time"), ("class_embed_type", "timestep")]
)
def test_a_unet_that_takes_more_is_refused(tiny_stable_diffusion: Path, key: str, value: Any) -> None:
    model = open_model(tiny_stable_diffusion, read_values=False)
    module: Any = module_on_meta(
        "UNet2DConditionModel", json.loads(model.folder_of(Component.UNET).config_json)
    )
    module.register_to_config(**{key: value})
    with pytest.raises(ModelError) as caught:
        flat_component(model.family.spec(Component.UNET), module)
    assert str(caught.value) == (
        f"unet/config.json: {key} is '{value}', which asks for inputs that this family does not have\n"
        "fix: use a checkpoint of the family that model_index.json names"
    )
