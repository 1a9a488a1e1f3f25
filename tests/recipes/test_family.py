from __future__ import annotations

import pytest

from latentc.errors import ModelError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.recipes.family import Component, size_of


def test_a_component_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="has no component 'transformer'"):
        STABLE_DIFFUSION.spec(Component.TRANSFORMER)


@pytest.mark.parametrize(("guided", "count"), [(True, 7), (False, 6), (None, 6)])
def test_some_checkpoints_take_one_more_input(guided: bool | None, count: int) -> None:
    assert len(FLUX.spec(Component.TRANSFORMER).inputs_of({"guidance_embeds": guided})) == count


def test_a_size_is_a_number_a_key_or_computed() -> None:
    config = {"width": 3}
    assert [size_of(size, config) for size in (2, "width", lambda one: len(one))] == [2, 3, 1]
