"""Pack: the lowered components of one target, and everything else that a run needs, become a bundle.

    <component>/…                       what lowering wrote, but for component.json
    tokenizer/, tokenizer_2/            tokenizer.json and its settings
    scheduler/scheduler_config.json     as the recipe chose it
    reference/                          what the original pipeline made, for latentc validate, if it drew
    reference/passes/<component>.json   what the passes changed, left alone and lost
    reference/<component>.npz           one golden input and output, and selftest.json: the self-test
    proof.json                          what was proven here for a target that runs elsewhere
    required_operators_and_types.config ort-mobile: what a reduced onnxruntime must keep
    manifest.json                       written last

The self-test's limits are measured here, by running it on this CPU. What draws nothing has no self-test.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latentc.compiler.scheduler_entry import scheduler_entry
from latentc.compiler.stage import Progress, Stage
from latentc.compiler.stages.component_entry import COMPONENT_FILE, Lowered, read_lowered
from latentc.compiler.stages.transform import PASSES_FILE
from latentc.compiler.toolchain import versions
from latentc.errors import InternalError, ModelError, TargetError
from latentc.recipes.family import Component
from latentc.recipes.target import Runtime, Target, target_named
from latentc.runtime.manifest import Json, LatentEntry, Manifest, SamplingEntry
from latentc.validation.build_facts import PASSES

if TYPE_CHECKING:
    from latentc.compiler.model_folder import ModelFolder
    from latentc.recipes.family import ComponentSpec
    from latentc.runtime.session import Array

REFERENCE_INPUT = "reference"
OPERATORS_FILE = "required_operators_and_types.config"
PROOF_FILE = "proof.json"

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# A self-test finds a wrong engine or a broken board, not a small loss: its limit is the measured error and
# half as much again, never below what float16 kernels differ by.
_LIMIT_MARGIN = 1.5
_SMALLEST_LIMIT = 0.002


@dataclass(frozen=True)
class Pack(Stage):
    """Make a bundle.

    Args:
        target_name: a name from latentc.recipes.target.TARGETS.
        recipe_json: the resolved recipe as canonical JSON; kept in the manifest.
        recipe_name: what the bundle is called.
        scheduler: a key of latentc.compiler.scheduler_entry.RECIPE_NAMES; None takes the model's own.
        steps: denoiser steps of a run.
        guidance: classifier-free guidance scale of a run.
        height: pixels.
        width: pixels.
        components: values of latentc.recipes.family.Component; also names of inputs.
        model_root: the pipeline's folder; not part of the identity, its content is.
        model_digest: ModelFolder.digest.
        simulated: what the passes only simulate on this target, in words, besides what lowering finds.
        checkpoint: one file with weights, as open_model takes it; not part of the identity either.
    """

    name: ClassVar[str] = "pack"
    version: ClassVar[int] = 2

    target_name: str
    recipe_json: str
    recipe_name: str
    scheduler: str | None
    steps: int
    guidance: float
    height: int
    width: int
    components: tuple[str, ...]
    model_root: Path
    model_digest: str
    simulated: tuple[str, ...] = ()
    checkpoint: Path | None = None

    def options(self) -> dict[str, Json]:
        """Everything that the manifest says, the model folder's content and the toolchain."""
        return {
            "target": self.target_name,
            "recipe": json.loads(self.recipe_json),
            "name": self.recipe_name,
            "scheduler": self.scheduler,
            "sampling": [self.steps, self.guidance, self.height, self.width],
            "components": list(self.components),
            "model": self.model_digest,
            "simulated": list(self.simulated),
            "toolchain": dict(self._toolchain()),
        }

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Write the bundle.

        Reads of each component the lowered folder, by its name, and what its passes did, by
        ``transform/<name>``; and ``reference``, unless the recipe draws nothing.

        Raises:
            ModelError: a tokenizer has no length or pad token.
            RecipeError: the scheduler does not fit the model.
            TargetError: a component gives NaN on a golden input.
        """
        from latentc.compiler.model_folder import open_model
        from latentc.compiler.tokenizer_entry import tokenizer_entries
        from latentc.runtime.bundle import write_manifest
        from latentc.runtime.selftest import write_limits

        target = target_named(self.target_name)
        model = open_model(self.model_root, self.checkpoint, read_values=False)
        lowered = {name: self._take(name, inputs[name], out, progress) for name in self.components}
        proofs = {name: item.proof for name, item in lowered.items() if item.proof}
        if proofs:
            _write_json(out / PROOF_FILE, dict(proofs))
        for name, folder in model.tokenizers.items():
            _copy(folder, out / name, _TOKENIZER_FILES)
        scheduler = scheduler_entry(model.scheduler_config, self.scheduler, self.steps)
        (out / "scheduler").mkdir()
        _write_json(
            out / "scheduler" / "scheduler_config.json", {"_class_name": scheduler.name, **scheduler.config}
        )
        self._write_operators(out)
        progress(0.5, "copying the reference")
        reference = inputs.get(REFERENCE_INPUT)
        if reference is not None:
            shutil.copytree(reference, out / "reference", copy_function=shutil.copyfile)
        (out / "reference" / PASSES).mkdir(parents=True)
        for name in self.components:
            shutil.copyfile(
                inputs[f"transform/{name}"] / PASSES_FILE, out / "reference" / PASSES / f"{name}.json"
            )
        golden = () if reference is None else self._write_golden(model, reference, out)
        manifest = Manifest(
            name=self.recipe_name,
            target=target.name,
            family=model.family.name,
            runtime=str(target.runtime),
            components={name: item.entry for name, item in lowered.items()},
            tokenizers=tokenizer_entries(model),
            scheduler=scheduler,
            sampling=SamplingEntry(self.steps, self.guidance, self.height, self.width),
            latent=latent_entry(model),
            recipe=json.loads(self.recipe_json),
            toolchain=self._toolchain(),
            simulated=(*self.simulated, *(words for item in lowered.values() for words in item.simulated)),
            zeroes_empty_negative=model.zeroes_empty_negative,
        )
        if golden:
            # a first time without meaning, so that the bundle opens and its self-test can be measured
            write_limits(out, dict.fromkeys(golden, math.inf))
            write_manifest(out, manifest)
            progress(0.7, "measuring the self-test")
            write_limits(out, _measured_limits(out, target, golden))
        write_manifest(out, manifest)
        progress(1.0, f"{self.recipe_name} for {target.name}")

    def _toolchain(self) -> dict[str, str]:
        packages = ["torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript", "nncf", "numpy"]
        packages += ["onnxruntime", "peft", "safetensors"]
        if target_named(self.target_name).runtime is not Runtime.ONNXRUNTIME:
            packages += ["tensorrt-rtx-cu13", "polygraphy"]
        return versions(*packages)

    def _take(self, name: str, folder: Path, out: Path, progress: Progress) -> Lowered:
        progress(0.4 * self.components.index(name) / len(self.components), f"copying {name}")
        lowered = read_lowered(folder)
        names = [path.name for path in sorted(folder.iterdir()) if path.name != COMPONENT_FILE]
        _copy(folder, out / name, names)
        return lowered

    def _write_operators(self, out: Path) -> None:
        from latentc.compiler.stages.ort_format import ORT_FILE, write_operators_config

        names = [f"{name}/{ORT_FILE}" for name in self.components if (out / name / ORT_FILE).is_file()]
        if names:
            write_operators_config([out / name for name in names], names, out / OPERATORS_FILE)

    def _write_golden(self, model: ModelFolder, reference: Path, out: Path) -> tuple[Component, ...]:
        """The self-test's inputs and outputs: one row of the reference's, since engines take one prompt."""
        from latentc.runtime.selftest import write_golden
        from latentc.validation.reference import read_reference

        read = read_reference(reference)
        components = tuple(component for component in read.components() if str(component) in self.components)
        if not components:
            raise InternalError("reference", "has golden tensors of none of the components")
        for component in components:
            spec = model.family.spec(component)
            tensors = read.golden(component)
            write_golden(out, component, _first_row(spec, tensors.inputs), _first_row(spec, tensors.outputs))
        return components


def latent_entry(model: ModelFolder) -> LatentEntry:
    """The latent space that the VAE's config describes."""
    config = model.components["vae"].config
    blocks = config.get("block_out_channels")
    shift = config.get("shift_factor")
    return LatentEntry(
        channels=int(_number(config, "latent_channels", 4)),
        downscale=2 ** (len(blocks) - 1) if isinstance(blocks, list) else 1,
        scaling_factor=_number(config, "scaling_factor", 0.18215),
        shift_factor=float(shift) if isinstance(shift, int | float) else 0.0,
    )


def _number(config: Mapping[str, Json], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"vae/config.json: {key}", f"is {value!r}, a number was expected", "")
    return value


def _measured_limits(
    bundle: Path, target: Target, components: tuple[Component, ...]
) -> dict[Component, float]:
    """Run the self-test here and give each component the limit that its error asks for."""
    from latentc.runtime.bundle import open_bundle
    from latentc.runtime.selftest import run_selftest

    stand_in = target.runtime is not Runtime.ONNXRUNTIME
    # one thread: sums are then formed in one order, whatever the number of cores
    findings = run_selftest(open_bundle(bundle), components, threads=1, stand_in=stand_in)
    limits: dict[Component, float] = {}
    for finding in findings:
        if not math.isfinite(finding.relative_error):
            raise TargetError(
                f"{target.name}: {finding.component}",
                f"output '{finding.output}' holds NaN or infinity on a golden input",
                "keep more of this component in float32, or quantize less of it",
            )
        limits[finding.component] = max(limits.get(finding.component, 0.0), limit_of(finding.relative_error))
    return limits


def limit_of(relative_error: float) -> float:
    """The self-test's limit for a measured error: with a margin, rounded up to 1, 2 or 5 of its decade.

    Rounded so that the last bits of the CPU that measures do not show in the bundle.
    """
    wanted = max(relative_error * _LIMIT_MARGIN, _SMALLEST_LIMIT)
    exponent = math.floor(math.log10(wanted))
    candidates = (float(f"{digit}e{exponent}") for digit in (1, 2, 5, 10))
    return next(limit for limit in candidates if limit >= wanted)


def _first_row(spec: ComponentSpec, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """``tensors`` with one row on the axis B, where they have that axis."""
    batched = {tensor.name for tensor in (*spec.inputs, *spec.outputs) if tensor.axes[0] == "B"}
    return {name: array[:1] if name in batched else array for name, array in tensors.items()}


def _copy(source: Path, out: Path, names: Iterable[str]) -> None:
    """Copy those of ``names`` that are there; bytes only, so that times and rights do not matter."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def _write_json(path: Path, data: Mapping[str, Json]) -> None:
    text = json.dumps(dict(data), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
