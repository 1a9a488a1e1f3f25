from __future__ import annotations

import inspect

import pytest

from latentc.compiler.scheduler_entry import OPTIONS, RECIPE_NAMES, implemented, scheduler_entry
from latentc.errors import ModelError, RecipeError
from latentc.runtime.manifest import Json

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning:torch"  # torch's own, on import
)

PNDM: dict[str, Json] = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
FLOW: dict[str, Json] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_options_are_those_of_diffusers(name: str) -> None:
    import diffusers

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    assert set(OPTIONS[name]) == set(parameters) - {"self"}


def test_every_scheduler_of_the_runtime_can_be_chosen() -> None:
    assert set(RECIPE_NAMES.values()) == set(OPTIONS) == set(implemented())


@pytest.mark.parametrize("chosen", ["ddim", "euler", "lcm"])
def test_recipe_chooses_and_model_sets(chosen: str) -> None:
    entry = scheduler_entry(PNDM, chosen, 20)
    assert entry.name == RECIPE_NAMES[chosen]
    assert entry.config["beta_end"] == 0.012
    assert "skip_prk_steps" not in entry.config
    assert not {key for key in entry.config if key.startswith("_")}


def test_config_is_what_diffusers_takes_over() -> None:
    from diffusers import DDIMScheduler

    taken = DDIMScheduler.from_config(PNDM).config
    assert {key: taken[key] for key in scheduler_entry(PNDM, "ddim", 20).config} == dict(
        scheduler_entry(PNDM, "ddim", 20).config
    )


def test_models_own_scheduler() -> None:
    assert scheduler_entry(FLOW, None, 4).config == {"shift": 3.0}


def test_unknown_class_needs_a_choice() -> None:
    with pytest.raises(ModelError) as caught:
        scheduler_entry(PNDM, None, 20)
    assert str(caught.value) == (
        "scheduler/scheduler_config.json: _class_name: 'PNDMScheduler' is no scheduler that latentc has\n"
        "fix: set sampling.scheduler in the recipe; did you mean 'DDIMScheduler'?"
    )


@pytest.mark.parametrize(
    ("config", "chosen", "fitting"),
    [(FLOW, "ddim", "flow-match-euler"), (PNDM, "flow-match-euler", "ddim, euler, lcm")],
)
def test_flow_and_diffusion_do_not_mix(config: dict[str, Json], chosen: str, fitting: str) -> None:
    with pytest.raises(RecipeError) as caught:
        scheduler_entry(config, chosen, 20)
    assert str(caught.value) == (
        f"sampling.scheduler: is '{chosen}', but the model was trained for {config['_class_name']}\n"
        f"fix: choose one of: {fitting}"
    )


def test_setting_that_is_not_implemented() -> None:
    with pytest.raises(RecipeError, match="does not implement"):
        scheduler_entry({**PNDM, "thresholding": True}, "ddim", 20)
