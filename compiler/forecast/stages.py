"""Foretold stages: what each step of a plan will take, in seconds, memory and disk.

Seconds are what the machine's own speeds (latentc.compiler.forecast.machine) make of the work that the
traces count.
Memory is what a process holds after its imports, and besides what the stage needs by the sizes of weights and
of live values. Factors that no size explains were fitted to builds of random and demo models; ``make
bench-plan`` says how far off they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from latentc.compiler.batches import batch_size
from latentc.compiler.forecast.call_work import works_of
from latentc.compiler.forecast.component import ENCODERS, ForetoldComponent
from latentc.compiler.forecast.device_memory import ONNX_COPIES, ORT_LIVE, in_onnxruntime
from latentc.compiler.forecast.live_memory import ONNXRUNTIME, live_bytes
from latentc.compiler.forecast.machine import Machine
from latentc.compiler.forecast.machine_rates import ort_rates, torch_rates
from latentc.compiler.forecast.pass_seconds import pass_seconds
from latentc.compiler.forecast.stored_bytes import stored_bytes
from latentc.recipes.family import Component
from latentc.recipes.recipe import Recipe
from latentc.recipes.target import Runtime, Target, target_named
from latentc.validation.workers import workers_for

_MIB = 2**20
_GOLDEN = 8
_KEPT_TRAJECTORIES = 8
_PNG_BYTES_A_PIXEL = 1.2
_PUBLISH_S, _PACK_S, _VALIDATE_S = 0.05, 0.5, 0.6
"""What these take however little there is: workers that start, sessions, syncs."""
_HASHED_A_SECOND = 1e9


@dataclass(frozen=True)
class StageForecast:
    """One step.

    Args:
        label: of the plan's step.
        seconds: by the clock, when nothing else runs.
        peak_bytes: the largest resident memory of the process, and of a child where one does the work.
        disk_bytes: what stays in the store.
    """

    label: str
    seconds: float
    peak_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class _Fitted:
    """Factors that no size explains, of the packages that are pinned."""

    imported: int = 610 * _MIB
    imported_later: int = 35 * _MIB
    traced_node: int = 60_000
    import_turns: float = 76e6
    export_turns: float = 21e6
    export_node_turns: float = 187e3
    symbols: float = 1.9
    loading_turns: float = 16e6
    torch_live: float = 1.3
    lowering_copies: float = 4.4
    converting_s: float = 12.0
    converting_turns: float = 100_000.0


FITTED = _Fitted()


class StageForecaster:
    """Foretells the steps of one recipe on one machine.

    Args:
        recipe: what is built.
        components: all of it.
        denoiser: which of them is called in every step.
        machine: where.
        clip_bytes: size of the CLIP model that judges pictures; 0 for none.
    """

    def __init__(
        self,
        recipe: Recipe,
        components: Sequence[ForetoldComponent],
        denoiser: Component,
        machine: Machine,
        clip_bytes: int = 0,
    ) -> None:
        self._recipe = recipe
        self._by_name = {str(one.component): one for one in components}
        self._denoiser = self._by_name[str(denoiser)]
        self._machine = machine
        self._clip_bytes = clip_bytes
        self._torch = torch_rates(machine)
        self._floor = FITTED.imported + FITTED.traced_node * max(len(one.trace.nodes) for one in components)

    def forecast(self, label: str, *, imports: bool = False) -> StageForecast:
        """The step called ``label``, as latentc.compiler.plan names it; ``imports``: nothing is loaded."""
        own = self._work(label)
        later = label.partition("/")[0] in ("transform", "lower", "pack", "validate")
        return replace(
            own,
            seconds=own.seconds
            + self._publishing(own.disk_bytes)
            + (1e-9 * FITTED.import_turns * self._machine.speeds.python_ns if imports else 0.0),
            peak_bytes=own.peak_bytes + self._floor + (FITTED.imported_later if later else 0),
        )

    def _publishing(self, disk_bytes: int) -> float:
        """Seconds until a result is in the store: written, hashed, and read and hashed again."""
        speeds = self._machine.speeds
        return _PUBLISH_S + disk_bytes / (1e9 * speeds.disk_write_gb_s) + 2 * disk_bytes / _HASHED_A_SECOND

    def _work(self, label: str) -> StageForecast:
        """What the stage itself takes, its memory over the floor of a process that has its imports."""
        stage, _, rest = label.partition("/")
        if stage == "export":
            return self._export(label, self._by_name[rest])
        if stage in ("reference", "calibrate", "sensitivity"):
            return self._drawing(label)
        if stage == "transform":
            return self._transform(label, self._by_name[rest])
        target_name, _, component = rest.partition("/")
        target = target_named(target_name)
        if stage == "lower":
            return self._lower(label, self._by_name[component], target)
        return self._pack(label, target) if stage == "pack" else self._validate(label, target)

    @cached_property
    def _parameter_bytes(self) -> int:
        """Of all weights in float32; encoder and decoder of the VAE lie in one file."""
        return 4 * sum(one.trace.parameters for one in self._by_name.values())

    def _export(self, label: str, one: ForetoldComponent) -> StageForecast:
        turns = FITTED.export_turns + FITTED.export_node_turns * len(one.trace.nodes)
        largest = 4 * max((math.prod(shape) for shape in one.trace.weights.values()), default=0)
        is_encoder = one.component in ENCODERS
        if is_encoder:  # traced with symbols, see latentc.compiler.open_sizes
            turns *= FITTED.symbols
        return StageForecast(
            label,
            1e-9 * turns * self._machine.speeds.python_ns,
            largest if is_encoder else 0,  # made for real, one after another, for its buffers
            2000 * len(one.trace.nodes),
        )

    def _torch_seconds(self, one: ForetoldComponent, pictures: int) -> float:
        return self._torch.seconds(works_of(one.plain, fuses=False), pictures)

    def _draw(self, prompts: int) -> tuple[float, int]:
        """Seconds to draw ``prompts`` with the original, and the most that is alive meanwhile."""
        sampling = self._recipe.sampling
        together = batch_size(sampling.height, sampling.width)
        seconds, live = 0.0, 0
        halves = self._denoiser.pictures
        for one in self._by_name.values():
            if one.component is Component.VAE_ENCODER:
                continue
            calls = sampling.steps if one is self._denoiser else 1
            rows = halves if one is self._denoiser else 1
            for batch in _batches(prompts, together):
                seconds += calls * self._torch_seconds(one, rows * batch)
                live = max(live, int(FITTED.torch_live * rows * batch * one.trace.live_bytes))
        return seconds, live

    def _drawing(self, label: str) -> StageForecast:
        recipe, speeds = self._recipe, self._machine.speeds
        prompts = {
            "reference": recipe.validation.count,
            "calibrate": recipe.calibration.count,
            "sensitivity": recipe.calibration.sensitivity,
        }[label]
        seconds, live = self._draw(prompts)
        weights = self._parameter_bytes
        seconds += 1e-9 * FITTED.loading_turns * speeds.python_ns
        seconds += weights / 2 / (1e9 * speeds.disk_read_gb_s) + 2 * weights / (1e9 * speeds.memory_gb_s)
        memory = weights + live
        disk = self.reference_bytes if label == "reference" else self._record_bytes(label)
        if label == "sensitivity":
            # four gradients, each a trajectory forward, once more, and back at twice the work
            seconds *= 17
            saved = sum(
                4 * self._denoiser.trace.values[n].numbers for n in range(len(self._denoiser.trace.values))
            )
            memory += 4 * self._denoiser.trace.parameters + saved * self._denoiser.pictures
        return StageForecast(label, seconds, memory, disk)

    @cached_property
    def reference_bytes(self) -> int:
        """What the original draws, as a bundle holds it."""
        recipe = self._recipe
        P, pixels = recipe.validation.count, recipe.sampling.height * recipe.sampling.width
        latent = self._numbers(Component.VAE_DECODER, inputs=True)
        golden = sum(
            min(_GOLDEN, P) * 4 * (self._numbers(one.component, inputs=True) + self._numbers(one.component))
            for one in self._by_name.values()
        )
        embeddings = sum(
            4 * self._numbers(one.component) for one in self._by_name.values() if one.component in ENCODERS
        )
        trajectory = min(_KEPT_TRAJECTORIES, P) * (recipe.sampling.steps + 1) * latent * 4
        pictures = int(P * pixels * _PNG_BYTES_A_PIXEL)
        noise = P * (recipe.sampling.steps - 1) * latent * 4 if recipe.sampling.scheduler == "lcm" else 0
        own = self._denoiser.pictures - 1
        return (
            golden
            + (P + own) * embeddings
            + 2 * P * latent * 4
            + trajectory
            + noise
            + pictures
            + self._clip_bytes
        )

    def _numbers(self, component: Component, *, inputs: bool = False) -> int:
        one = self._by_name[str(component)].trace
        return sum(one.values[n].numbers for n in (one.inputs if inputs else one.outputs))

    def _record_bytes(self, label: str) -> int:
        if label == "sensitivity":
            return 100_000
        chosen = self._recipe.calibration
        samples = sum(
            min(chosen.samples, chosen.count) * 4 * self._numbers(one.component, inputs=True)
            for one in self._by_name.values()
            if one is not self._denoiser
        )
        samples += chosen.samples * 4 * self._numbers(self._denoiser.component, inputs=True)
        if any(one.needs_rows for item in self._by_name.values() for one in item.passes):
            linears = [shape for shape in self._denoiser.trace.weights.values() if len(shape) == 2]
            samples += sum(int(1.5 * chosen.rows) * 4 * shape[1] for shape in linears)
        return samples

    def _transform(self, label: str, one: ForetoldComponent) -> StageForecast:
        speeds = self._machine.speeds
        disk = stored_bytes(one.built, target_named("onnx")).total
        seconds = 4 * one.trace.parameters / (1e9 * speeds.memory_gb_s)
        seconds += 2 * one.trace.parameters / (1e9 * speeds.disk_read_gb_s)
        seconds += sum(pass_seconds(step, one.plain, self._machine) for step in one.passes)
        memory = 8 * max((4 * math.prod(shape) for shape in one.trace.weights.values()), default=0)
        if any(step.needs_calibration for step in one.passes):
            samples = self._recipe.calibration.samples
            seconds += 2 * samples * ort_rates(self._machine, "onnx").seconds(works_of(one.plain))
            memory += int(ONNX_COPIES * 4 * one.trace.parameters)
            memory += int(ORT_LIVE * live_bytes(one.plain, ONNXRUNTIME))
        return StageForecast(label, seconds, memory, disk)

    def _lower(self, label: str, one: ForetoldComponent, target: Target) -> StageForecast:
        speeds = self._machine.speeds
        stored = stored_bytes(one.built, target)
        seconds = 0.0
        memory = 0
        if target.runtime is not Runtime.ONNXRUNTIME:
            engines = len(target.compute_capabilities) * len(one.sizes) if not target.engine_on_device else 1
            seconds += engines * (0.2 + 0.0075 * len(one.trace.nodes) + 12 * stored.weights / 1e9)
            memory = max(0, 350 * _MIB + int(3.5 * stored.weights) - self._floor)  # of a child
        elif target.name == "ort-mobile":
            memory = int(FITTED.lowering_copies * stored.total)
            seconds += 1e-9 * FITTED.converting_s * stored.total
            seconds += 1e-9 * FITTED.converting_turns * len(one.trace.nodes) * speeds.python_ns
        return StageForecast(label, seconds, memory, stored.total)

    def _bundle_bytes(self, target: Target) -> int:
        return self.reference_bytes + sum(
            stored_bytes(one.built, target).total for one in self._by_name.values()
        )

    def _pack(self, label: str, target: Target) -> StageForecast:
        total = self._bundle_bytes(target)
        memory = max(in_onnxruntime(one, target).open for one in self._by_name.values())
        seconds = _PACK_S + 2 * total / _HASHED_A_SECOND
        one_thread = ort_rates(self._machine, _form_of(target), 1)
        seconds += sum(one_thread.seconds(works_of(one.built)) for one in self._by_name.values())
        return StageForecast(label, seconds, memory, total)

    def _validate(self, label: str, target: Target) -> StageForecast:
        recipe = self._recipe
        sampling, P = recipe.sampling, recipe.validation.count
        workers = workers_for(sampling.height, sampling.width, self._machine.threads)
        rates = ort_rates(self._machine, _form_of(target), 1 if workers > 1 else 0)
        seconds = _VALIDATE_S
        held = [in_onnxruntime(one, target) for one in self._by_name.values()]
        for one in self._by_name.values():
            calls = sampling.steps if one is self._denoiser else 1
            once = rates.seconds(works_of(one.built), one.pictures)
            drawn = 0 if one.component is Component.VAE_ENCODER else P * calls
            seconds += (drawn / workers + min(_GOLDEN, P)) * once
        most = max(max(workers * one.activations, one.loading) for one in held)
        memory = sum(one.weights for one in held) + most
        disk = 2 * P * sampling.height * sampling.width
        return StageForecast(label, seconds, memory, disk)


def _form_of(target: Target) -> str:
    """What a target's graph is for this processor: engines have a stand-in, as it was exported."""
    return target.name if target.runtime is Runtime.ONNXRUNTIME else "onnx"


def _batches(prompts: int, together: int) -> Iterable[int]:
    for start in range(0, prompts, together):
        yield min(together, prompts - start)
