"""The gate: a bundle against its reference, rung by rung, and the verdict."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from latentc.errors import BundleError, TargetError
from latentc.recipes.target import Runtime
from latentc.runtime.bundle import MANIFEST, Bundle, sha256_of_file
from latentc.runtime.generate import open_pipeline
from latentc.runtime.pipeline import Pipeline
from latentc.validation.compare_components import compare_components
from latentc.validation.compare_pictures import compare_latents, compare_pictures
from latentc.validation.draw_pictures import draw_pictures
from latentc.validation.limits import Limits
from latentc.validation.measured import Measured
from latentc.validation.progress import Clock, Progress, part_of
from latentc.validation.reference import Reference
from latentc.validation.report import BuildFacts, Execution, PictureRow, Report, SizeRow, StepRow
from latentc.validation.workers import workers_for


def validate(
    bundle: Bundle,
    reference: Reference,
    limits: Limits,
    out: Path,
    *,
    build: BuildFacts | None = None,
    stand_in: bool = True,
    threads: int = 0,
    low_memory: bool = False,
    progress: Progress = lambda fraction, what: None,
    clock: Clock = time.perf_counter,
) -> Report:
    """Compare ``bundle`` with ``reference`` and judge the figures by ``limits``.

    A bundle that cannot draw (NaN, a graph that fails) gets a report that says so and does not pass.

    Args:
        bundle: opened.
        reference: made from the same recipe.
        limits: of the recipe.
        out: folder of the report; pictures are written into ``out``/pictures, in place of older ones.
        build: what the compiler knows about the bundle, for the report's tables.
        stand_in: run the ONNX form in onnxruntime where the target's own runtime is another; the report
            says so. Without effect where onnxruntime is the target's own.
        threads: of onnxruntime on the CPU; 0 takes one a physical core.
        low_memory: hold one component at a time.
        progress: told about what is being done.
        clock: for the timings.

    Raises:
        BundleError: bundle or reference is damaged, or they are not of one family.
        TargetError: the target's own runtime is asked for and cannot run here.
        ToolMissing: a runtime's package is not installed.
    """
    if reference.family != bundle.family.name:
        raise BundleError(
            str(reference.root),
            f"is a reference for '{reference.family}', the bundle is '{bundle.family.name}'",
            "name the reference that was made with this bundle",
        )
    measured = Measured()
    steps: tuple[StepRow, ...] = ()
    pictures: tuple[PictureRow, ...] = ()
    on_cpu = stand_in or bundle.target.runtime is Runtime.ONNXRUNTIME
    workers = workers_for(reference.height, reference.width, threads) if on_cpu else 1
    session_threads = 1 if workers > 1 else threads
    with open_pipeline(bundle, threads=session_threads, low_memory=low_memory, stand_in=stand_in) as pipeline:
        compare_components(
            pipeline, reference, bundle.family, measured, clock=clock, progress=part_of(progress, 0, 0.15)
        )
        steps, pictures = _compare_drawing(
            pipeline, bundle, reference, measured, out, threads, workers, clock, part_of(progress, 0.15, 1)
        )
    manifest = bundle.manifest
    return Report(
        recipe=manifest.name,
        target=manifest.target,
        family=manifest.family,
        execution=_execution(bundle, stand_in),
        findings=measured.findings(limits),
        pictures=pictures,
        steps=steps,
        sizes=tuple(
            SizeRow(
                name, entry.fp16_bytes, entry.weight_bytes, entry.quantized_fp16_bytes, entry.quantized_bytes
            )
            for name, entry in manifest.components.items()
        ),
        bundle_bytes=sum(entry.size_bytes for entry in manifest.files.values())
        + (bundle.folder / MANIFEST).stat().st_size,
        build=BuildFacts() if build is None else build,
        timings=tuple(measured.timings),
        notes=tuple(measured.notes),
        sampling={
            "steps": reference.steps,
            "guidance": reference.guidance,
            "height": reference.height,
            "width": reference.width,
        },
        scheduler=manifest.scheduler.name,
        environment=_environment(bundle) | {"pictures at a time": str(workers)},
        provenance={
            "manifest": f"sha256 {sha256_of_file(bundle.folder / MANIFEST)}",
            "bundle made with": _versions(manifest.toolchain),
            "reference made with": _versions(reference.toolchain),
        },
        resolved_recipe=manifest.recipe,
    )


def _compare_drawing(
    pipeline: Pipeline,
    bundle: Bundle,
    reference: Reference,
    measured: Measured,
    out: Path,
    threads: int,
    workers: int,
    clock: Clock,
    progress: Progress,
) -> tuple[tuple[StepRow, ...], tuple[PictureRow, ...]]:
    """Rungs two and three; a bundle that fails while drawing is a finding, not the end of the report."""
    try:
        drawing = draw_pictures(
            pipeline,
            reference,
            bundle.family,
            measured,
            workers=workers,
            clock=clock,
            progress=part_of(progress, 0, 0.95),
        )
    except TargetError as error:
        if not measured.values:
            raise  # nothing ran at all: the target cannot do it, which is no verdict on the bundle
        why = f"{error.where} {error.message}".strip()
        measured.failed |= {"trajectory": why, "pictures": why}
        measured.notes.append(f"Drawing failed: {why}.")
        return (), ()
    steps = compare_latents(drawing, reference, measured)
    pictures = compare_pictures(
        drawing, reference, measured, out, threads=threads, progress=part_of(progress, 0.95, 1)
    )
    return steps, pictures


def _execution(bundle: Bundle, stand_in: bool) -> Execution:
    instead = stand_in and bundle.target.runtime is not Runtime.ONNXRUNTIME
    words = ""
    if instead:
        words = (
            f"{bundle.target.runtime} did not run: the bundle's ONNX form ran in onnxruntime "
            f"{_version('onnxruntime')} on this CPU in its place. The figures judge the graph and its "
            "weights, not the target's kernels, and the timings are not the target's."
        )
    return Execution(bundle.target.executes, bundle.manifest.simulated, words)


def _environment(bundle: Bundle) -> dict[str, str]:
    """The machine that validates, as far as it can change a figure."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("onnxruntime", "numpy", "pillow", "latentc")},
        "target runtime": str(bundle.target.runtime),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _versions(toolchain: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(toolchain.items()))
