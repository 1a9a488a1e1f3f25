"""Prediction: what building a recipe and running its bundles will take, from configs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.compiler.forecast.component import foretell_components
from latentc.compiler.forecast.device_fit import DeviceFit, fit
from latentc.compiler.recipe_passes import passes_of
from latentc.recipes.family import Component
from latentc.recipes.target import TARGETS, FloatType, Runtime, Target, target_named

if TYPE_CHECKING:
    from latentc.compiler.forecast.call_work import Rates
    from latentc.compiler.forecast.component import ForetoldComponent
    from latentc.compiler.forecast.machine import Machine
    from latentc.compiler.forecast.stages import StageForecast
    from latentc.compiler.forecast.stored_bytes import StoredBytes
    from latentc.compiler.model_folder import ModelFolder
    from latentc.compiler.store import Store
    from latentc.recipes.load import LoadedRecipe
    from latentc.runtime.manifest import Json

HERE = "this CPU, "
"""Before a target's name: its form on this machine."""


@dataclass(frozen=True)
class BundleForecast:
    """What a bundle for one target takes.

    Args:
        target: its name.
        components: files of each.
        reference: what the gate compares with, and all else that is in a bundle.
    """

    target: str
    components: dict[str, StoredBytes]
    reference: int

    @property
    def total(self) -> int:
        """The whole bundle."""
        return self.reference + sum(one.total for one in self.components.values())


@dataclass(frozen=True)
class SpeedForecast:
    """How fast it draws on one device.

    Args:
        device: a target's name, or HERE and one that runs on CPUs.
        step_s: of one step.
        picture_s: of a picture, text encoders and decoder included.
        source: where the figures come from.
    """

    device: str
    step_s: float
    picture_s: float
    source: str


@dataclass(frozen=True)
class Prediction:
    """All of it.

    Args:
        stages: the steps of the plan, those too that are in the store.
        bundles: one a target of the recipe.
        fits: those targets, and all Jetson Orins.
        speeds: of the same, and of this machine.
        machine: where the stages would run.
    """

    stages: tuple[StageForecast, ...]
    bundles: tuple[BundleForecast, ...]
    fits: tuple[DeviceFit, ...]
    speeds: tuple[SpeedForecast, ...]
    machine: Machine

    def to_json(self) -> dict[str, Json]:
        """For scripts."""
        return {
            "stages": [dict(asdict(one)) for one in self.stages],
            "bundles": [
                {
                    "target": one.target,
                    "total_bytes": one.total,
                    "reference_bytes": one.reference,
                    "components": {name: dict(asdict(of)) for name, of in one.components.items()},
                }
                for one in self.bundles
            ],
            "devices": [
                {
                    "target": one.target,
                    "fits": one.fits,
                    "has_bytes": one.has_bytes,
                    "sequential_bytes": one.memory.sequential,
                    "together_bytes": one.memory.together,
                    "engine_build_bytes": one.memory.building,
                    "components": {
                        str(of.component): {
                            "weight_bytes": of.weights,
                            "activation_bytes": of.activations,
                            "loading_bytes": of.loading,
                            "engine_build_bytes": of.building,
                        }
                        for of in one.memory.components
                    },
                    "advice": one.advice,
                }
                for one in self.fits
            ],
            "speeds": [dict(asdict(one)) for one in self.speeds],
            "machine": dict(asdict(self.machine)),
        }


def predict(
    loaded: LoadedRecipe,
    model: ModelFolder,
    target_names: Sequence[str],
    labels: Sequence[str],
    store: Store,
    *,
    measured: bool = True,
    probe_again: bool = False,
) -> Prediction:
    """Foretell building ``loaded`` here and running it on its targets.

    Args:
        loaded: the recipe.
        model: the pipeline that it names; its weights need not be there.
        target_names: of the recipe, or instead of its own.
        labels: of the plan's steps.
        store: where traces and the machine's speeds are kept.
        measured: by the machine's own speeds; otherwise seconds mean nothing, and nothing is measured.
        probe_again: measure the machine even when it was measured before.

    Raises:
        LatentcError: the recipe or the model cannot be built; as the build itself would say it.
    """
    from latentc.compiler.forecast.machine import machine_of
    from latentc.compiler.forecast.probe import probe
    from latentc.compiler.forecast.stages import StageForecaster

    recipe = loaded.recipe
    passes = passes_of(loaded, model.family)
    components = foretell_components(recipe, model, passes, store)
    machine = machine_of(store.root, probe if measured else None, again=probe_again)
    clip_bytes = 0
    if recipe.validation.clip is not None:
        clip_bytes = _folder_bytes(loaded.path_of(recipe.validation.clip))
    forecaster = StageForecaster(recipe, components, model.family.denoiser, machine, clip_bytes)
    targets = [target_named(name) for name in target_names]
    shown = [*targets, *(one for one in TARGETS if one.engine_on_device and one not in targets)]
    size = recipe.sampling.height, recipe.sampling.width
    return Prediction(
        tuple(forecaster.forecast(label, imports=label == labels[0]) for label in labels),
        tuple(_bundle(target, components, forecaster.reference_bytes) for target in targets),
        tuple(fit(components, target, model.family.denoiser, *size) for target in shown),
        tuple(_speeds(components, shown, machine, model.family.denoiser, recipe.sampling.steps)),
        machine,
    )


def _bundle(target: Target, components: Sequence[ForetoldComponent], reference_bytes: int) -> BundleForecast:
    from latentc.compiler.forecast.stored_bytes import stored_bytes

    stored = {str(one.component): stored_bytes(one.built, target, len(one.sizes)) for one in components}
    return BundleForecast(target.name, stored, reference_bytes)


def _speeds(
    components: Sequence[ForetoldComponent],
    targets: Sequence[Target],
    machine: Machine,
    denoiser: Component,
    steps: int,
) -> list[SpeedForecast]:
    from latentc.compiler.forecast.call_work import rates_of
    from latentc.compiler.forecast.machine_rates import ort_rates

    here = "measured on this machine with onnxruntime (latentc.compiler.forecast.probe)"
    forms = [target.name for target in targets if target.runtime is Runtime.ONNXRUNTIME] or ["onnx"]
    found = [
        _speed(f"{HERE}{form}", components, ort_rates(machine, form), denoiser, steps, here) for form in forms
    ]
    for target in targets:
        if target.roofline is None:
            continue
        is_engine = target.runtime is not Runtime.ONNXRUNTIME
        float_bytes = 2 if target.float_type is FloatType.FLOAT16 else 4
        rates = rates_of(target.roofline, float_bytes, fuses=is_engine)
        found.append(_speed(target.name, components, rates, denoiser, steps, target.roofline.source))
    return found


def _speed(
    device: str,
    components: Sequence[ForetoldComponent],
    rates: Rates,
    denoiser: Component,
    steps: int,
    source: str,
) -> SpeedForecast:
    from latentc.compiler.forecast.call_work import works_of

    once: dict[Component, float] = {
        one.component: rates.seconds(works_of(one.built, fuses=rates.float_bytes == 2), one.pictures)
        for one in components
        if one.component is not Component.VAE_ENCODER
    }
    step_s = once[denoiser]
    picture_s = steps * step_s + sum(seconds for name, seconds in once.items() if name is not denoiser)
    return SpeedForecast(device, step_s, picture_s, source)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
