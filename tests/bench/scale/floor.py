"""Floor: what must be done to a model's linears at least, each phase alone: read, fit, quantize, write."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from latentc.compiler.safetensors_file import read_safetensors
from latentc.passes.int4_weight import int4_weight
from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.one_thread import one_thread
from latentc.passes.weights import Floats

_READ_BYTES = 16 << 20
_SMALLEST = 4096


def floor_seconds(folder: Path, scratch: Path, workers: int) -> dict[str, float]:
    """Seconds by phase, with all ``workers`` busy.

    Fitting and quantizing are timed on one layer of each shape and counted for all of that shape.

    Args:
        folder: of the denoiser's safetensors files.
        scratch: on the disk that is written.
        workers: threads.
    """
    files = [read_safetensors(path) for path in sorted(folder.glob("*.safetensors"))]
    shapes = Counter(
        tensor.shape
        for file in files
        for tensor in file.tensors.values()
        if len(tensor.shape) == 2 and tensor.size >= _SMALLEST and tensor.shape[1] % 64 == 0
    )
    found = {"read": _timed(lambda: _read([file.path for file in files]))}
    fit_s = quantize_s = 0.0
    written_bytes = 0
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        for (N, K), count in shapes.items():
            # one a worker, so that they get in one another's way as they do in a build
            layers = [
                np.random.default_rng(index).standard_normal((N, K), dtype=np.float32).T
                for index in range(workers)
            ]
            fit_s += _timed(lambda layers=layers: list(pool.map(_fit, layers))) * count / workers  # type: ignore[misc]
            quantize_s += _timed(lambda layers=layers: list(pool.map(_quantize, layers))) * count / workers  # type: ignore[misc]
            written_bytes += count * (K * N // 2 + 2 * K * N // 64 + 32 * (K + N))
    stored = sum(file.path.stat().st_size for file in files) // 2
    linears = sum(count * N * K for (N, K), count in shapes.items())
    written_bytes += 4 * max(0, stored - linears)
    found |= {"fit": fit_s, "quantize": quantize_s}
    found["write"] = _timed(lambda: _write(scratch / "floor.part", written_bytes))
    found["all"] = sum(found.values())
    return found


def _timed(work: Callable[[], object]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def _read(paths: list[Path]) -> None:
    buffer = bytearray(_READ_BYTES)
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # from the disk, as a first build reads
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _fit(weight: Floats) -> None:
    low_rank_branch(weight, min(32, *weight.shape), BranchType.INT8, 64, 0)


def _quantize(weight: Floats) -> None:
    int4_weight(weight, 64)


def _write(path: Path, size_bytes: int) -> None:
    block = os.urandom(_READ_BYTES)
    with path.open("wb") as file:
        for _ in range(size_bytes // _READ_BYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
