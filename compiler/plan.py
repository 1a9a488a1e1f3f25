"""Plan: the compiler, readable top to bottom. Pure: no stage runs, no torch is imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latentc.compiler.budget import Budget
from latentc.compiler.clip_folder import open_clip
from latentc.compiler.drawn_sizes import drawn_sizes
from latentc.compiler.model_folder import ModelFolder
from latentc.compiler.recipe_passes import passes_of
from latentc.compiler.sampling_options import LoraFile, SamplingOptions
from latentc.compiler.stage import Step
from latentc.compiler.stages.calibrate import Calibrate
from latentc.compiler.stages.export import Export
from latentc.compiler.stages.lower import Lower
from latentc.compiler.stages.pack import Pack
from latentc.compiler.stages.reference import Reference
from latentc.compiler.stages.sensitivity import Sensitivity
from latentc.compiler.stages.transform import Transform
from latentc.compiler.stages.validate import Validate
from latentc.errors import ModelError, RecipeError
from latentc.passes.lora_file import lora_file
from latentc.recipes.families.catalogue import FAMILIES
from latentc.recipes.load import LoadedRecipe
from latentc.recipes.target import Runtime, Target, target_named
from latentc.runtime.bundle import sha256_of_file
from latentc.validation.limits import limits_from_recipe
from latentc.validation.prompts import read_prompts

if TYPE_CHECKING:
    from latentc.passes.base import Pass


_CALIBRATION_SEEDS = 2**32
"""Where the seeds of calibration begin: beyond those of any validation, so that no noise is seen twice."""
_DRAW_NOTHING = "take passes that need no recorded inputs, and set validation.count to 0"


@dataclass(frozen=True)
class Plan:
    """Steps in an order in which each follows its inputs.

    Args:
        name: under which the store remembers the keys, to say later why a step is stale.
        steps: labels are unique.
    """

    name: str
    steps: tuple[Step, ...]


@dataclass
class _Steps:
    """Collects steps in the order in which they are made."""

    made: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> Step:
        self.made.append(step)
        return step


def plan_recipe(
    loaded: LoadedRecipe, model: ModelFolder, target_names: Sequence[str], budget: Budget | None = None
) -> Plan:
    """What has to be done to build ``loaded`` for ``target_names``.

    Args:
        loaded: the recipe.
        model: the pipeline that it names, opened.
        target_names: names from latentc.recipes.target.TARGETS.
        budget: of the machine; None takes the default.

    Raises:
        ResourceError: the original, which draws, is larger than the budget.
        RecipeError: a component, prompt set, limit or pass of the recipe does not exist or does not fit.
        ModelError: a LoRA or the CLIP model cannot be read, or the family cannot be drawn.
        TargetError: there is no such target.
    """
    recipe = loaded.recipe
    family = model.family
    if not family.is_drawn:
        drawn = ", ".join(one.name for one in FAMILIES if one.is_drawn)
        raise ModelError(
            str(model.root),
            f"is of the family '{family.name}', which latentc exports but cannot draw with yet: nothing "
            "could validate a bundle of it",
            f"use a model of one of: {drawn}",
        )
    targets = [target_named(name) for name in target_names]
    components = [spec.component for spec in family.components]
    passes = passes_of(loaded, family)
    limits_from_recipe(recipe.validation.limits, family)  # refused now, not after an hour
    if recipe.validation.limits and not recipe.validation.count:
        raise RecipeError(
            f"{loaded.file}: validation.limits",
            "count is 0, so nothing is drawn that limits could judge",
            "remove the limits, or set count to at least 1",
        )
    sampling = _sampling(loaded, model)
    prompts = _prompts(loaded)

    steps = _Steps()
    exported = {
        component: steps.add(
            Step(
                f"export/{component}",
                Export(
                    family.name,
                    str(component),
                    model.folder_of(component).class_name,
                    model.folder_of(component).config_json,
                ),
                {},
            )
        )
        for component in components
    }
    reference = (
        {"reference": steps.add(Step("reference", _reference(loaded, model, sampling, prompts), {}))}
        if prompts
        else {}
    )
    needs_calibration = any(_takes_calibration(chain) for chain in passes.values())
    needs_rows = any(one.needs_rows for chain in passes.values() for one in chain)
    calibration = (
        {
            "calibration": steps.add(
                Step("calibrate", _calibrate(loaded, model, sampling, prompts, needs_rows=needs_rows), {})
            )
        }
        if needs_calibration
        else {}
    )
    needs_gains = any(one.needs_gains for chain in passes.values() for one in chain)
    sensitivity = (
        {"sensitivity": steps.add(Step("sensitivity", _sensitivity(loaded, model, sampling, prompts), {}))}
        if needs_gains
        else {}
    )
    transformed = {
        component: steps.add(
            Step(
                f"transform/{component}",
                Transform(
                    str(component),
                    tuple(str(one) for one in passes[component]),
                    model.root,
                    model.digest_of(component),
                    model.checkpoint,
                    budget or Budget(),
                ),
                {
                    "export": exported[component],
                    **(calibration if _takes_calibration(passes[component]) else {}),
                    **(sensitivity if any(one.needs_gains for one in passes[component]) else {}),
                },
            )
        )
        for component in components
    }
    for target in targets:
        lowered = {
            component: steps.add(
                Step(
                    f"lower/{target.name}/{component}",
                    Lower(
                        target.name,
                        str(component),
                        ()
                        if target.runtime is Runtime.ONNXRUNTIME
                        else drawn_sizes(recipe, model, component),
                    ),
                    {"transform": transformed[component]},
                )
            )
            for component in components
        }
        packed = steps.add(
            Step(
                f"pack/{target.name}",
                _pack(target, loaded, model),
                {
                    **reference,
                    **{str(component): step for component, step in lowered.items()},
                    **{f"transform/{component}": step for component, step in transformed.items()},
                },
            )
        )
        limits = tuple(sorted(recipe.validation.limits.items()))
        if reference:
            steps.add(Step(f"validate/{target.name}", Validate(limits), {"pack": packed}))
    if budget is not None and (reference or calibration or sensitivity):
        _require_original_fits(model, budget)
    return Plan(recipe.name, tuple(steps.made))


def _takes_calibration(chain: Sequence[Pass]) -> bool:
    return any(one.needs_calibration for one in chain)


def _require_original_fits(model: ModelFolder, budget: Budget) -> None:
    """Raise ResourceError when the original, which draws in float32, takes more than the budget."""
    values = (
        tensor.size
        for component in model.components.values()
        for file in component.files
        for tensor in file.tensors.values()
    )
    budget.require(str(model.root), "drawing with the original", 4 * sum(values), _DRAW_NOTHING)


def _sampling(loaded: LoadedRecipe, model: ModelFolder) -> SamplingOptions:
    chosen = loaded.recipe.sampling
    loras = []
    for lora in loaded.recipe.model.loras:
        file = lora_file(loaded.path_of(lora.path))
        loras.append(LoraFile(file, sha256_of_file(file), lora.scale))
    return SamplingOptions(
        model.root,
        model.digest,
        tuple(loras),
        chosen.scheduler,
        chosen.steps,
        chosen.guidance,
        chosen.height,
        chosen.width,
        checkpoint=model.checkpoint,
    )


def _prompts(loaded: LoadedRecipe) -> tuple[str, ...]:
    chosen = loaded.recipe.validation
    if not chosen.count:
        return ()
    return read_prompts(chosen.prompts, chosen.count, loaded.file.parent)


def _reference(
    loaded: LoadedRecipe, model: ModelFolder, sampling: SamplingOptions, prompts: tuple[str, ...]
) -> Reference:
    chosen = loaded.recipe.validation
    clip = None if chosen.clip is None else open_clip(loaded.path_of(chosen.clip))
    return Reference(
        model.family.name,
        sampling,
        prompts,
        tuple(range(chosen.seed, chosen.seed + chosen.count)),
        clip_root=None if clip is None else clip.root,
        clip_digest="" if clip is None else clip.digest,
    )


def _calibrate(
    loaded: LoadedRecipe,
    model: ModelFolder,
    sampling: SamplingOptions,
    prompts: tuple[str, ...],
    *,
    needs_rows: bool,
) -> Calibrate:
    chosen = loaded.recipe.calibration
    own, seeds = _calibration_prompts(loaded, prompts)
    rows = chosen.rows if needs_rows else 0
    return Calibrate(model.family.name, sampling, own, seeds, chosen.samples, rows)


def _sensitivity(
    loaded: LoadedRecipe, model: ModelFolder, sampling: SamplingOptions, prompts: tuple[str, ...]
) -> Sensitivity:
    count = loaded.recipe.calibration.sensitivity
    own, seeds = _calibration_prompts(loaded, prompts)
    return Sensitivity(model.family.name, sampling, own[:count], seeds[:count])


def _calibration_prompts(
    loaded: LoadedRecipe, prompts: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """From the same set as validation, but never a prompt that validation judges by; with their seeds."""
    chosen = loaded.recipe.calibration
    shared = len(prompts) if chosen.prompts == loaded.recipe.validation.prompts else 0
    own = read_prompts(chosen.prompts, shared + chosen.count, loaded.file.parent)[shared:]
    first = _CALIBRATION_SEEDS + chosen.seed
    return own, tuple(range(first, first + chosen.count))


def _pack(target: Target, loaded: LoadedRecipe, model: ModelFolder) -> Pack:
    recipe = loaded.to_json()
    # Limits belong to the gate, not to the bundle: changing one must not change the bundle's bytes.
    validation = recipe["validation"]
    if isinstance(validation, dict):
        validation.pop("limits", None)
    recipe.pop("targets")  # a bundle is for one of them, and the same whichever others are built beside it
    sampling = loaded.recipe.sampling
    return Pack(
        target.name,
        json.dumps(recipe, sort_keys=True),
        loaded.recipe.name,
        sampling.scheduler,
        sampling.steps,
        sampling.guidance,
        sampling.height,
        sampling.width,
        tuple(str(spec.component) for spec in model.family.components),
        model.root,
        model.digest,
        checkpoint=model.checkpoint,
    )
