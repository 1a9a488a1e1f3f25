import pytest
from pydantic import ValidationError

from latentc.recipes.recipe import Lora, Recipe, Sampling


def test_a_recipe_is_a_value() -> None:
    sampling = Sampling(scheduler="ddim", height=64, width=64)
    with pytest.raises(ValidationError, match="frozen"):
        sampling.steps = 3
    assert sampling == Sampling(scheduler="ddim", height=64, width=64)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_is_finite(scale: float) -> None:
    with pytest.raises(ValidationError, match="must be finite"):
        Lora(path="x", scale=scale)


def test_a_pass_entry_is_a_name_or_a_name_with_options() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "model": {"path": "x"},
            "sampling": {"scheduler": "euler", "height": 64, "width": 64},
            "targets": ["onnx"],
            "passes": {"denoiser": ["a", {"b": None}, {"c": {"d": 1}}]},
        }
    )
    assert [(p.name, p.options) for p in recipe.passes["denoiser"]] == [("a", {}), ("b", {}), ("c", {"d": 1})]
