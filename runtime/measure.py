"""How long each component takes on this machine, and how much memory: `latentc bench`."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentc.errors import UsageError
from latentc.recipes.family import Component
from latentc.recipes.target import Runtime, Target
from latentc.runtime.axes import input_shapes
from latentc.runtime.bundle import Bundle, component_named, open_bundle
from latentc.runtime.manifest import Manifest
from latentc.runtime.noise import initial_latent
from latentc.runtime.session import Array, Session, open_session


@dataclass(frozen=True)
class Measurement:
    """One component on this machine.

    Args:
        component: which.
        latency_ms: median of all runs after the warm-up.
        slowest_ms: the slowest of them.
        load_ms: from the file to a session that can run, hashing included.
        memory_mib: while this component was open: the process's largest resident memory; for engines the
            growth of the device's used memory, which on a Jetson is the CPU's as well.
    """

    component: Component
    latency_ms: float
    slowest_ms: float
    load_ms: float
    memory_mib: float


def measure_bundle(
    source: Bundle | Path,
    *,
    runs: int = 10,
    warmup: int = 2,
    batch: int = 1,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Measurement, ...]:
    """Measure every component at the manifest's picture size, one open at a time.

    Args:
        source: a bundle or its folder.
        runs: how many are timed, 1 or more.
        warmup: how many go before and are not.
        batch: B of all inputs.
        threads: of onnxruntime on the CPU; None takes one a physical core.
        clock: seconds, monotonic.

    Raises:
        UsageError: ``runs`` or ``warmup`` is out of range.
        TargetError: this machine cannot run the bundle.
    """
    if runs < 1 or warmup < 0:
        raise UsageError("--runs", f"{runs} runs after {warmup}", "time at least 1 run")
    bundle = open_bundle(source) if isinstance(source, Path) else source
    measurements = []
    for name in sorted(bundle.manifest.components):
        component = component_named(name)
        inputs = sample_inputs(bundle.manifest, component, batch=batch)
        memory_used_mib = _memory_meter(bundle.target)
        start = clock()
        with open_session(bundle, component, threads=threads or 0) as session:
            load_ms = 1000 * (clock() - start)
            times_ms = latencies_ms(session, inputs, runs=runs, warmup=warmup, clock=clock)
            memory_mib = memory_used_mib()
        measurements.append(
            Measurement(component, statistics.median(times_ms), max(times_ms), load_ms, memory_mib)
        )
    return tuple(measurements)


def latencies_ms(
    session: Session,
    inputs: Mapping[str, Array],
    *,
    runs: int,
    warmup: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Milliseconds of each of ``runs`` runs, after ``warmup`` that are not timed."""
    times_ms = []
    for index in range(warmup + runs):
        start = clock()
        session.run(inputs)
        if index >= warmup:
            times_ms.append(1000 * (clock() - start))
    return times_ms


def sample_inputs(manifest: Manifest, component: Component, *, batch: int) -> dict[str, Array]:
    """Inputs of the manifest's picture size: normal noise for float inputs, the pad token for token ids."""
    sampling = manifest.sampling
    shapes = input_shapes(manifest, component, batch=batch, height=sampling.height, width=sampling.width)
    inputs: dict[str, Array] = {}
    for entry in manifest.components[str(component)].inputs:
        shape = shapes[entry.name]
        if entry.dtype.startswith("int"):
            pad_id = min(tokenizer.pad_id for tokenizer in manifest.tokenizers.values())
            inputs[entry.name] = np.full(shape, pad_id, dtype=np.int64)
        else:
            inputs[entry.name] = initial_latent([0], 1, 1, int(np.prod(shape))).reshape(shape)
    return inputs


def _memory_meter(target: Target) -> Callable[[], float]:
    """Starts measuring; what it returns tells the memory in MiB."""
    if target.runtime is Runtime.ONNXRUNTIME:
        reset_peak_memory()
        return peak_memory_mib
    from latentc.runtime.cuda_memory import CudaDevice

    device = CudaDevice()
    before_mib = device.used_memory_mib()

    def growth_mib() -> float:
        grown_mib = device.used_memory_mib() - before_mib
        device.close()
        return grown_mib

    return growth_mib


def peak_memory_mib() -> float:
    """The largest resident memory of this process since ``reset_peak_memory``, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak_memory() -> None:
    """Start the peak anew; where the kernel does not allow it, the peak stays that of the whole process."""
    clear = Path("/proc/self/clear_refs")
    if clear.is_file():
        try:
            clear.write_text("5")  # proc(5): resets the peak resident set size
        except PermissionError:
            return
