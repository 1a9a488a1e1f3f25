"""The scheduler of a bundle: the recipe says which, the model folder says how it is set."""

from __future__ import annotations

from collections.abc import Mapping

from latentc.errors import LatentcError, ModelError, RecipeError, nearest
from latentc.runtime.manifest import Json, SchedulerEntry
from latentc.runtime.scheduler import SCHEDULERS, scheduler_from_entry

# The options of each class in diffusers 0.42.1: what its ``from_config`` takes of another scheduler's config.
_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
_SIGMA_FORMS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_CLIPPING = (
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
)
_SPACING = ("prediction_type", "timestep_spacing", "steps_offset", "rescale_betas_zero_snr")

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "DDIMScheduler": (*_BETAS, *_CLIPPING, *_SPACING, "set_alpha_to_one"),
    "EulerDiscreteScheduler": (
        *_BETAS,
        *_SPACING,
        *_SIGMA_FORMS,
        "interpolation_type",
        "sigma_min",
        "sigma_max",
        "timestep_type",
        "final_sigmas_type",
    ),
    "LCMScheduler": (
        *_BETAS,
        *_CLIPPING,
        *_SPACING,
        "set_alpha_to_one",
        "original_inference_steps",
        "timestep_scaling",
    ),
    "FlowMatchEulerDiscreteScheduler": (
        "num_train_timesteps",
        "shift",
        "use_dynamic_shifting",
        "base_shift",
        "max_shift",
        "base_image_seq_len",
        "max_image_seq_len",
        "invert_sigmas",
        "shift_terminal",
        *_SIGMA_FORMS,
        "time_shift_type",
        "stochastic_sampling",
    ),
}
"""Config keys by diffusers class name."""

RECIPE_NAMES: Mapping[str, str] = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
    "flow-match-euler": "FlowMatchEulerDiscreteScheduler",
}
"""What a recipe calls them, to diffusers' class names."""


def scheduler_entry(config: Mapping[str, Json], chosen: str | None, steps: int) -> SchedulerEntry:
    """The scheduler that ``config``, a model folder's scheduler_config.json, and the recipe ask for.

    Args:
        config: with its ``_class_name``.
        chosen: a key of RECIPE_NAMES; None takes the model's own class.
        steps: of the recipe, tried at once.

    Raises:
        ModelError: the model's own class is not one of ours and the recipe chooses none.
        RecipeError: a flow model with a diffusion schedule or the other way round, or settings that the
            scheduler does not implement.
    """
    own = str(config.get("_class_name"))
    if chosen is None and own not in OPTIONS:
        raise ModelError(
            "scheduler/scheduler_config.json: _class_name",
            f"'{own}' is no scheduler that latentc has",
            f"set sampling.scheduler in the recipe; {nearest(own, RECIPE_NAMES.values())}",
        )
    name = own if chosen is None else RECIPE_NAMES[chosen]
    if own.startswith("FlowMatch") != name.startswith("FlowMatch"):
        fitting = [
            key
            for key, value in RECIPE_NAMES.items()
            if own.startswith("FlowMatch") == value.startswith("FlowMatch")
        ]
        raise RecipeError(
            "sampling.scheduler",
            f"is '{chosen}', but the model was trained for {own}",
            f"choose one of: {', '.join(fitting)}",
        )
    entry = SchedulerEntry(name, {key: config[key] for key in OPTIONS[name] if key in config})
    try:
        # the token count only shifts a flow's schedule; any will do to see whether the settings are known
        scheduler_from_entry(entry, steps, image_tokens=256)
    except LatentcError as error:
        raise RecipeError("sampling.scheduler", str(error.message), error.fix) from error
    return entry


def implemented() -> tuple[str, ...]:
    """Class names that the runtime has."""
    return tuple(kind.name for kind in SCHEDULERS)
