"""Engines built on the board: ONNX in, engine and record out, then the bundle's self-test.

Each component is built in a child process and appears whole or not at all. A component whose self-test
fails loses its record, so nothing runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from latentc.errors import TargetError, UsageError
from latentc.recipes.family import Component
from latentc.runtime.axes import input_shapes
from latentc.runtime.bundle import (
    BUILDING,
    TIMING_CACHE,
    Bundle,
    component_named,
    engine_record,
    open_bundle,
    sha256_of_file,
)
from latentc.runtime.engine_record import EngineRecord, Profile, record_to_json
from latentc.runtime.selftest import require_passed, run_selftest
from latentc.runtime.tensorrt_session import PACKAGES, import_tensorrt
from latentc.runtime.whole_file import whole_file

_LARGEST_BATCH = 2  # negative and positive prompt of guidance
_TIMEOUT_S = 4 * 3600.0


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built.

    Args:
        smallest_pixels: smallest (height, width); None takes the manifest's, which makes the fastest engine.
        largest_pixels: largest (height, width); None takes the manifest's.
        optimization_level: 0…5; higher builds longer and may run faster.
        workspace_mib: memory that a layer may use while it runs, in MiB.
        timeout_s: per component.
    """

    smallest_pixels: tuple[int, int] | None = None
    largest_pixels: tuple[int, int] | None = None
    optimization_level: int = 3
    workspace_mib: int = 1024
    timeout_s: float = _TIMEOUT_S


@dataclass(frozen=True)
class Builder:
    """What builds.

    Args:
        package: ``tensorrt`` or ``tensorrt_rtx``.
        compute_capability: of the GPU that the engines are for.
        without_gpu: build for that GPU without having it, which TensorRT for RTX alone can.
    """

    package: str
    compute_capability: str
    without_gpu: bool = False


@dataclass(frozen=True)
class EngineRequest:
    """What the child process is asked.

    Args:
        package: ``tensorrt`` or ``tensorrt_rtx``.
        onnx: model file; external data lies beside it.
        engine: file to write.
        report: file to write, JSON with the library's version.
        profile: (smallest, likeliest, largest) shape of each input.
        compute_capability: of the GPU to build for, TensorRT for RTX only; empty takes the GPU that is there.
        timing_cache: file to read and write; empty uses none.
        optimization_level: 0…5.
        workspace_mib: of the builder.
    """

    package: str
    onnx: str
    engine: str
    report: str
    profile: Profile
    compute_capability: str = ""
    timing_cache: str = ""
    optimization_level: int = 3
    workspace_mib: int = 1024


def request_from_json(text: str) -> EngineRequest:
    """Read what ``json.dumps(asdict(request))`` wrote."""
    data = json.loads(text)
    profile = {name: tuple(tuple(shape) for shape in shapes) for name, shapes in data["profile"].items()}
    return EngineRequest(**{**data, "profile": profile})


def build_engines(folder: Path, options: EngineOptions | None = None) -> Iterator[str]:
    """Build the engines of the bundle in ``folder`` for this board's GPU, then run the self-test.

    Args:
        folder: a bundle whose target is built on the device.
        options: how; None takes the defaults.

    Yields:
        A line on what is being done or was found; the work is done once all lines are taken.

    Raises:
        BundleError: the bundle is damaged.
        TargetError: the target builds no engines, there is no GPU, or the builder refuses or crashes.
        ToolMissing: TensorRT or CUDA's runtime library is not installed.
        GateFailed: an engine's outputs are too far from the golden ones.
    """
    from latentc.runtime.cuda_memory import CudaDevice

    chosen = options or EngineOptions()
    bundle = open_bundle(folder)
    if not bundle.target.engine_on_device:
        raise TargetError(
            "target", f"'{bundle.target.name}' builds no engine on the device", "use the bundle as it is"
        )
    import_tensorrt(PACKAGES[bundle.target.runtime])
    device = CudaDevice()
    capability = device.compute_capability
    device.close()
    if capability not in bundle.target.compute_capabilities:
        raise TargetError(
            "device",
            f"has compute capability {capability}, target '{bundle.target.name}' is for "
            f"{', '.join(bundle.target.compute_capabilities)}",
            "use the bundle of this device's own target",
        )
    yield from build_components(bundle, chosen, Builder(PACKAGES[bundle.target.runtime], capability))
    if not bundle.manifest.is_validated:
        yield "no self-test: the bundle was built without validation"
        return
    yield "self-test"
    findings = run_selftest(bundle)
    for finding in findings:
        yield finding.words
        if not finding.passed:
            engine = bundle.manifest.components[str(finding.component)].file
            (bundle.folder / engine_record(engine)).unlink(missing_ok=True)
    require_passed(findings)


def build_components(bundle: Bundle, options: EngineOptions, builder: Builder) -> Iterator[str]:
    """Build and place the engine of every component; yields a line before each.

    Raises:
        BundleError: the bundle is damaged.
        TargetError: the builder refuses or crashes; engines built before stay in place.
    """
    building = bundle.folder / BUILDING
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        for name in bundle.manifest.components:
            yield f"building {name}"
            _build_component(bundle, component_named(name), building, options, builder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def profile_of(bundle: Bundle, component: Component, options: EngineOptions) -> Profile:
    """Smallest, likeliest and largest shape of each input of ``component``.

    Raises:
        UsageError: the manifest's own picture size lies outside of ``options``.
    """
    sampling = bundle.manifest.sampling
    usual = (sampling.height, sampling.width)
    low, high = options.smallest_pixels or usual, options.largest_pixels or usual
    for small, middle, large in zip(low, usual, high, strict=True):
        if not small <= middle <= large:
            raise UsageError(
                "picture size",
                f"{low[0]}×{low[1]} … {high[0]}×{high[1]} leaves out the bundle's own {usual[0]}×{usual[1]}",
                "widen the range",
            )
    guided = component is bundle.family.denoiser and component is Component.UNET and sampling.guidance > 1
    shapes = [
        input_shapes(bundle.manifest, component, batch=batch, height=size[0], width=size[1])
        for batch, size in ((1, low), (_LARGEST_BATCH if guided else 1, usual), (_LARGEST_BATCH, high))
    ]
    return {name: (shapes[0][name], shapes[1][name], shapes[2][name]) for name in shapes[0]}


def engine_from_onnx(component: str, request: EngineRequest, timeout_s: float = _TIMEOUT_S) -> str:
    """Build one engine in a child process.

    Args:
        component: its name, for messages.
        request: what to build.
        timeout_s: how long the child may take.

    Returns:
        The library's version.

    Raises:
        TargetError: the library refuses the graph, crashes (named by its signal) or does not end.
    """
    request_file = Path(request.engine).with_suffix(".request.json")
    request_file.write_text(json.dumps(asdict(request)), encoding="utf-8")
    log_file = request_file.with_suffix(".log")
    with log_file.open("wb") as log:
        try:
            code = subprocess.run(
                [sys.executable, "-m", "latentc.runtime.build_tensorrt", str(request_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise TargetError(
                component, f"{request.package} is not done after {timeout_s:g} s", "allow more time"
            ) from error
    lines = [line for line in log_file.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "it said nothing"
    if code < 0:
        raise TargetError(
            component,
            f"{request.package} crashed with {signal.Signals(-code).name}; its last words: {last}",
            "see dmesg: if memory ran out, add swap or build on a larger board of the same family",
        )
    if code != 0:
        raise TargetError(
            component,
            f"{request.package} refuses it: {last}",
            "build the bundle again without the named node's precision",
        )
    report = json.loads(Path(request.report).read_text(encoding="utf-8"))
    return str(report["version"])


def _build_component(
    bundle: Bundle, component: Component, building: Path, options: EngineOptions, builder: Builder
) -> None:
    entry = bundle.manifest.components[str(component)]
    for name in bundle.beside(entry.onnx):
        bundle.checked(name)
    cache, kept_cache = building / TIMING_CACHE, bundle.folder / TIMING_CACHE
    if kept_cache.is_file():
        shutil.copyfile(kept_cache, cache)
    request = EngineRequest(
        package=builder.package,
        onnx=str(bundle.folder / entry.onnx),
        engine=str(building / f"{component}.engine"),
        report=str(building / f"{component}.report.json"),
        profile=profile_of(bundle, component, options),
        compute_capability=builder.compute_capability if builder.without_gpu else "",
        timing_cache=str(cache),
        optimization_level=options.optimization_level,
        workspace_mib=options.workspace_mib,
    )
    version = engine_from_onnx(str(component), request, options.timeout_s)
    engine = Path(request.engine)
    record = EngineRecord(
        engine_sha256=sha256_of_file(engine),
        onnx_sha256=bundle.manifest.files[entry.onnx].sha256,
        library=builder.package,
        version=version,
        compute_capability=builder.compute_capability,
        profile=request.profile,
    )
    place_engine(bundle, component, engine, record)
    os.replace(cache, kept_cache)


def place_engine(bundle: Bundle, component: Component, engine: Path, record: EngineRecord) -> None:
    """Move a finished ``engine`` into the bundle, its record last.

    Until the record is in place the old one does not fit the new engine, and nothing runs it.
    """
    final = bundle.folder / bundle.manifest.components[str(component)].file
    os.replace(engine, final)
    final_record = final.parent / Path(engine_record(final.name)).name
    with whole_file(final_record, work=engine.parent) as file:
        file.write_text(record_to_json(record), encoding="utf-8")
