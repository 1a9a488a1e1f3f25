"""Seconds of one denoiser step on this CPU: our form and peers', each in a process of its own, taking turns.

    python -m tests.bench.step_speed FOLDER [--rounds 3] [--peers PYTHON]

FOLDER keeps the models (12 GB). PYTHON is an interpreter of an environment that has openvino and nncf, and
runs peers; ``PYTHON tests/bench/step_peer.py FOLDER/sd15 openvino`` and the like make their models first.
A round runs every way once, and what is reported is the median over rounds of each way's own ratio to
float32: other work on the machine slows a round as a whole. Processor seconds stand beside, they hardly
notice others. The error is that of the step's output against float32, ‖seen - wanted‖ / ‖wanted‖, on drawn
weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.bench.step_models import DENOISERS, Denoiser, export

from latentc.passes.base import PassContext
from latentc.passes.dynamic_products import DynamicProducts
from latentc.passes.fuse_attention import FuseAttention
from latentc.passes.model_file import read_model, write_model
from latentc.passes.normalize_groups import NormalizeGroups
from latentc.passes.quantize_int4 import QuantizeInt4

FLOAT = "onnxruntime fp32"
CHILD = Path(__file__).with_name("step_child.py")


@dataclass(frozen=True)
class Measured:
    """What one process found out.

    Args:
        step_s: of the wall, the least of its steps.
        step_cpu_s: of the processor, the least.
        load_s: until the session was there.
        peak_gib: the most memory that it had.
        error: of the output, relative to float32's.
    """

    step_s: float
    step_cpu_s: float
    load_s: float
    peak_gib: float
    error: float


def make_ours(denoiser: Denoiser, source: Path, folder: Path, bits: int) -> None:
    """Write ``denoiser`` as the target ort-x86 has it, from weights of 8 or of 4 bits; no data is needed."""
    model = read_model(source)
    context = PassContext()
    if bits == 4:
        model = QuantizeInt4(optional=True)(model, context).model
    for step in (
        DynamicProducts(floats=True, skip=denoiser.kept),
        FuseAttention(),
        NormalizeGroups(optional=True),
    ):
        model = step(model, context).model
    write_model(model, folder)


def run_child(python: str, kind: str, model: Path, work: Path) -> Measured:
    """Run three steps of ``model`` in a process of its own; ``work`` has the inputs and float32's output."""
    done = subprocess.run(
        [python, str(CHILD), kind, str(model), str(work)], capture_output=True, text=True, check=True
    )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def table(rows: dict[str, list[Measured]], sizes: Mapping[str, int]) -> list[str]:
    """Lines of Markdown; ratios are paired by round."""
    lines = [
        "| way | wall s | processor s | faster than fp32, wall | processor | load s | peak GiB | MB | error |"
    ]
    lines.append("|---|" + "---:|" * 8)
    for way, found in rows.items():
        pairs = list(zip(rows[FLOAT], found, strict=True))
        cells = [
            f"{statistics.median(one.step_s for one in found):.2f}",
            f"{statistics.median(one.step_cpu_s for one in found):.2f}",
            f"{statistics.median(base.step_s / one.step_s for base, one in pairs):.2f}",
            f"{statistics.median(base.step_cpu_s / one.step_cpu_s for base, one in pairs):.2f}",
            f"{statistics.median(one.load_s for one in found):.2f}",
            f"{max(one.peak_gib for one in found):.2f}",
            f"{sizes[way] / 1e6:.0f}",
            f"{found[0].error:.3f}",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Make what is missing, run the rounds, print a table for each denoiser."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--peers", default="")
    options = parser.parse_args()
    for denoiser in DENOISERS:
        if options.only in ("", denoiser.name):
            time_all(denoiser, options.folder / denoiser.name, options.rounds, options.peers)


def time_all(denoiser: Denoiser, folder: Path, rounds: int, peers: str) -> None:
    """Print the table of ``denoiser``."""
    source = folder / "float"
    if not (source / "model.onnx").is_file():
        export(denoiser, source)
    np.savez(folder / "inputs.npz", **denoiser.inputs(1))  # type: ignore[arg-type] # stubs
    ways: dict[str, tuple[str, str, Path]] = {FLOAT: (sys.executable, "onnxruntime", source / "model.onnx")}
    for bits in (8, 4):
        mine = folder / f"ours{bits}"
        if not (mine / "model.onnx").is_file():
            make_ours(denoiser, source, mine, bits)
        ways[f"latentc, {bits}-bit weights"] = (sys.executable, "latentc", mine / "model.onnx")
    for peer, kind, file in (
        ("MatMulNBits, blocks of 128", "onnxruntime", "nbits/model.onnx"),
        ("Olive, RTN, blocks of 128", "onnxruntime", "olive/model.onnx"),
        ("quantize_dynamic", "onnxruntime", "dynamic/model.onnx"),
        ("OpenVINO INT8 (NNCF)", "openvino", "openvino/model.xml"),
    ):
        if (folder / file).is_file():
            ways[peer] = (peers or sys.executable, kind, folder / file)
    rows: dict[str, list[Measured]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, (python, kind, model) in ways.items():
            rows[way].append(run_child(python, kind, model, folder))
            sys.stderr.write(f"{denoiser.name} {number} {way} {rows[way][-1]}\n")
    sizes = {
        way: sum(path.stat().st_size for path in model.parent.iterdir())
        for way, (_, _, model) in ways.items()
    }
    sys.stdout.write("\n".join([denoiser.name, *table(rows, sizes), ""]))


if __name__ == "__main__":
    main()
