"""Machine: how fast this one is, measured once by latentc.compiler.forecast.probe and kept in the store.

It is measured again when it has become another machine (processor, cores this process may use, memory,
packages that compute), or when it is asked for.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from latentc.compiler.toolchain import threads, versions
from latentc.runtime.manifest import Json
from latentc.runtime.whole_file import whole_file

MACHINE_FILE = "machine.json"
FORMAT = 2


@dataclass(frozen=True)
class Speeds:
    """What the probe measured, with all cores that this process may use unless it says otherwise.

    Args:
        disk_read_gb_s: 10⁹ bytes a second of a file that is in no cache.
        disk_write_gb_s: of a file that is written and synced.
        memory_gb_s: read and written in copying.
        python_ns: of one turn of a loop that calls a function, one core.
        eigh_s: to find the eigenvectors of a symmetric 512 × 512 matrix in float64, one core.
        round_s: to search INT4 steps for a million weights, one core.
        torch_linear_gops: torch's float32 product of large matrices.
        torch_convolution_gops: torch's 3 × 3 convolution of many channels.
        torch_attention_gops: torch's fused attention.
        ort_linear_gops: onnxruntime's float32 product.
        ort_int4_gops: of INT4 weights in groups of 64 by dynamic INT8.
        ort_int8_gops: of INT8 weights by dynamic INT8.
        ort_convolution_gops: 3 × 3, float32.
        ort_product_gops: of INT8 weights and activations whose step is found when it runs.
        ort_attention_gops: two products of float32 activations with a softmax between.
        ort_fused_attention_gops: the same as one operator.
    """

    disk_read_gb_s: float
    disk_write_gb_s: float
    memory_gb_s: float
    python_ns: float
    eigh_s: float
    round_s: float
    torch_linear_gops: float
    torch_convolution_gops: float
    torch_attention_gops: float
    ort_linear_gops: float
    ort_int4_gops: float
    ort_int8_gops: float
    ort_convolution_gops: float
    ort_product_gops: float
    ort_attention_gops: float
    ort_fused_attention_gops: float


@dataclass(frozen=True)
class Machine:
    """Where a build runs.

    Args:
        identity: what makes it this machine.
        speeds: measured on it.
        memory_bytes: of the machine, or what its control group allows.
        threads: cores that this process may use.
    """

    identity: dict[str, Json]
    speeds: Speeds
    memory_bytes: int
    threads: int


NOMINAL = Speeds(
    1.5, 0.4, 40.0, 40.0, 0.04, 0.0125, 180.0, 180.0, 150.0, 410.0, 550.0, 450.0, 400.0, 700.0, 260.0, 320.0
)
"""About two cores of a server of 2025, for those who ask for sizes alone."""


def machine_of(store: Path, probe: Callable[[Path], Speeds] | None, *, again: bool = False) -> Machine:
    """This machine, as it was measured before, or measured now.

    Args:
        store: root of the store: what was measured is kept there, and its disk is the one that counts.
        probe: measures, with a folder to write into; asked only when nothing fits that is kept. None: its
            memory and cores alone matter now, and the speeds are NOMINAL.
        again: measure whatever is kept.
    """
    if probe is None:
        return Machine({}, NOMINAL, memory_bytes(), threads())
    identity = _identity(store)
    file = store / MACHINE_FILE
    kept = None if again else _kept(file, identity)
    if kept is None:
        kept = probe(store)
        data = {"format": FORMAT, "identity": identity, "speeds": asdict(kept)}
        with whole_file(file) as path:
            path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return Machine(identity, kept, memory_bytes(), threads())


def _kept(file: Path, identity: dict[str, Json]) -> Speeds | None:
    try:
        data = json.loads(file.read_bytes())
        if data["format"] != FORMAT or data["identity"] != identity:
            return None
        return Speeds(**{one.name: float(data["speeds"][one.name]) for one in fields(Speeds)})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of another version, or none: it is measured again


def _identity(store: Path) -> dict[str, Json]:
    return {
        "processor": _processor(),
        "system": platform.system(),
        "threads": threads(),
        "memory_gib": round(memory_bytes() / 2**30),
        "disk": os.stat(store).st_dev,
        "packages": dict(versions("numpy", "torch", "onnxruntime")),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """What this process may use: the machine's memory, or the limit of its control group."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue  # no control group, or no limit ("max")
        whole = min(whole, limit)
    return whole
