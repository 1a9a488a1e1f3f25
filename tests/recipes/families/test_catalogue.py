"""What every family has to hold together."""

from __future__ import annotations

import pytest

from latentc.errors import ModelError
from latentc.recipes.families.catalogue import FAMILIES, family_named, family_of_pipeline
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.family import Family


def test_a_family_is_found_by_its_pipeline() -> None:
    assert family_of_pipeline("StableDiffusionPipeline") is STABLE_DIFFUSION
    assert family_of_pipeline("FluxKontextPipeline") is FLUX
    with pytest.raises(ModelError) as caught:
        family_of_pipeline("FluxPipelin")
    assert str(caught.value) == (
        "model_index.json: pipeline class 'FluxPipelin' is of no family that latentc knows\n"
        "fix: did you mean 'FluxPipeline'?"
    )


def test_names_and_pipelines_are_said_once() -> None:
    names = [family.name for family in FAMILIES]
    pipelines = [name for family in FAMILIES for name in (family.pipeline_class, *family.also)]
    assert len(set(names)) == len(names)
    assert len(set(pipelines)) == len(pipelines)
    assert [family_named(name) for name in names] == list(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_feeds_a_component_is_given_by_another(family: Family) -> None:
    given = {tensor.name for spec in family.components for tensor in spec.outputs}
    texts = {tensor.name for tensor in family.spec(family.denoiser).inputs if tensor.name.endswith("_states")}
    assert texts <= given


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_fixed_axis_has_a_size_and_no_size_is_idle(family: Family) -> None:
    for spec in family.components:
        fixed = {axis for tensor in spec.inputs for axis in tensor.axes if axis.endswith("*")}
        sized = {axis for axis, _ in spec.sizes}
        assert fixed <= sized
        given = {axis for tensor in spec.outputs for axis in tensor.axes}
        assert sized <= fixed | given | {"step", "pixel_step"}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_whoever_takes_text_says_which_tokenizer_pads_it(family: Family) -> None:
    tokenizers = {spec.tokenizer for spec in family.text_encoders}
    for spec in family.components:
        takes_text = any("T" in tensor.axes for tensor in spec.inputs)
        assert takes_text == bool(spec.tokenizer)
        assert not takes_text or spec.tokenizer in tokenizers
