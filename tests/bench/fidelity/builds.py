"""Builds: one variant of a demo model through ``latentc build``, and its figures from the report."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.fidelity.cells import METRICS, SEED_STRIDE, Cell
from tests.bench.fidelity.families import Family
from tests.bench.fidelity.methods import fp16_bytes

TARGET = "onnx"
"""Runs everything, activations in 4 bits simulated."""


@contextmanager
def build(cell: Cell, model: Path, passes: str, store: Path) -> Iterator[Path]:
    """Build ``passes`` for the model, prompts and seed of ``cell``, into a folder that goes at the end.

    Raises:
        RuntimeError: the build fails; with what it said.
    """
    settings = {
        "model.path": str(model.resolve()),
        "passes.denoiser": passes,
        "validation.count": str(cell.prompts),
        "validation.seed": str(cell.seed * SEED_STRIDE),
        "validation.limits": "{}",
    }
    with tempfile.TemporaryDirectory(prefix="latentc-bench-") as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, "-m", "latentc", "build", cell.row.question.family.name]
        command += ["--out", str(out), "--store", str(store), "--target", TARGET]
        command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):  # 1: the gate's verdict, and there are no limits here
            raise RuntimeError(done.stderr.strip())
        yield out


def share_of_fp16(out: Path, family: Family) -> float:
    """What the linears that rows quantize take in the bundle of ``out``; one left in float counts as fp16."""
    manifest = json.loads((out / TARGET / "manifest.json").read_text(encoding="utf-8"))
    entry = manifest["components"][family.denoiser]
    whole = fp16_bytes(family)
    untouched = whole - int(entry["quantized_fp16_bytes"])
    return (int(entry["quantized_bytes"]) + untouched) / whole


def metrics_of(out: Path) -> dict[str, float]:
    """The figures of METRICS in the report of ``out``.

    Raises:
        RuntimeError: one of them was not measured.
    """
    report = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
    values = {f"{one['component']}.{one['metric']}": one["value"] for one in report["findings"]}
    missing = [name for name in METRICS if values.get(name) is None]
    if missing:
        raise RuntimeError(f"not measured: {', '.join(missing)}")
    return {name: float(values[name]) for name in METRICS}
