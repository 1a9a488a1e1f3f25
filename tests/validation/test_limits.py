import math

import pytest

from latentc.errors import RecipeError
from latentc.recipes.families.flux import FLUX
from latentc.recipes.families.stable_diffusion import STABLE_DIFFUSION
from latentc.validation.limits import limits_from_recipe
from latentc.validation.metric import Direction


def test_a_recipe_s_limits_with_the_guards() -> None:
    limits = limits_from_recipe({"unet.sqnr_db": 18, "pictures.psnr_db": 20.5}, STABLE_DIFFUSION)
    assert dict(limits.values) == {
        ("text_encoder", "not_finite"): 0.0,
        ("unet", "not_finite"): 0.0,
        ("vae_encoder", "not_finite"): 0.0,
        ("vae_decoder", "not_finite"): 0.0,
        ("pictures", "blank_pictures"): 0.0,
        ("unet", "sqnr_db"): 18.0,
        ("pictures", "psnr_db"): 20.5,
    }
    assert limits.asked == {("unet", "sqnr_db"), ("pictures", "psnr_db")}
    assert limits.limit("unet", "cosine") is None


def test_denoiser_is_the_family_s_own() -> None:
    for family, name in ((STABLE_DIFFUSION, "unet"), (FLUX, "transformer")):
        limits = limits_from_recipe({"denoiser.relative_error": 0.2}, family)
        assert limits.limit(name, "relative_error") == 0.2
        assert limits.metrics[name, "relative_error"].direction is Direction.AT_MOST


def test_a_guard_can_be_loosened_by_the_recipe() -> None:
    limits = limits_from_recipe({"pictures.blank_pictures": 2}, STABLE_DIFFUSION)
    assert limits.limit("pictures", "blank_pictures") == 2.0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"unet.sqnr_bd": 18},
            "validation.limits.unet.sqnr_bd: there is no metric 'unet.sqnr_bd' in stable-diffusion\n"
            "fix: did you mean 'unet.sqnr_db'?",
        ),
        (
            {"transformer.sqnr_db": 18},
            "validation.limits.transformer.sqnr_db: there is no metric 'transformer.sqnr_db' in "
            "stable-diffusion\nfix: did you mean 'unet.sqnr_db'?",
        ),
        (
            {"unet.cosine": 0.9, "denoiser.cosine": 0.8},
            "validation.limits.denoiser.cosine: is the same metric as 'unet.cosine'\nfix: remove one of them",
        ),
        (
            {"pictures.ssim": math.nan},
            "validation.limits.pictures.ssim: is nan, expected a finite number\n"
            "fix: remove it to leave it unlimited",
        ),
    ],
)
def test_what_cannot_be_a_limit(limits: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        limits_from_recipe(limits, STABLE_DIFFUSION)
    assert str(caught.value) == message
