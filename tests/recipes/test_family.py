import pytest

from latentc.errors import ModelError
from latentc.recipes.family import FAMILIES, FLUX, STABLE_DIFFUSION, Component, family_of_pipeline


def test_a_family_is_found_by_its_pipeline() -> None:
    assert family_of_pipeline("StableDiffusionPipeline") is STABLE_DIFFUSION
    with pytest.raises(ModelError) as caught:
        family_of_pipeline("FluxPipelin")
    assert str(caught.value) == (
        "model_index.json: pipeline class 'FluxPipelin' is of no family that latentc knows\n"
        "fix: did you mean 'FluxPipeline'?"
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_feeds_a_component_is_given_by_another(family: object) -> None:
    assert family in (STABLE_DIFFUSION, FLUX)
    for known in FAMILIES:
        given = {tensor.name for spec in known.components for tensor in spec.outputs}
        texts = {t.name for t in known.spec(known.denoiser).inputs if t.name.endswith("_states")}
        assert texts <= given


def test_a_component_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="has no component 'transformer'"):
        STABLE_DIFFUSION.spec(Component.TRANSFORMER)
