"""Seconds that each pass takes for a million weights, on layers of the sizes that large models have.

    python -m tests.bench.pass_speed

Linears of FLUX.1 (3072 x 3072, 3072 x 12288, 12288 x 3072), and of SDXL attention (1280, 20 heads) and a
convolution (640 x 640 x 3 x 3), with normal weights and recorded inputs of which some channels stick out. A
time is that of the pass and of writing the model, which is when weights are computed: the median of three,
or of fewer where these take over half a minute. Beside it stands the time that processors worked on it, which
on a machine that others use too is nearer to what an idle one takes; seconds per million weights are of that.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from safetensors.numpy import save_file
from tests.passes.attention_graphs import attention_text
from tests.passes.graphs import model_of, values

from latentc.passes.base import PassContext
from latentc.passes.catalogue import PASSES
from latentc.passes.layer_gains import write_gains
from latentc.passes.layer_rows import ROWS, RowKind, rows_file
from latentc.passes.model_file import read_model, write_model
from latentc.passes.pass_text import pass_from_text
from latentc.passes.weights import find_linears, shape_of

ROWS_KEPT = 1024
"""Rows recorded of each linear to fit to; as many again are held out."""
RECORDS, TOKENS = 6, 256
ENOUGH_S = 30.0
LORA = "lora.safetensors"
HEAD = "| pass | layer | 1 thread: s | processor s | a million | 2 threads: s | processor s | a million |"


@dataclass(frozen=True)
class Case:
    """One pass on one graph.

    Args:
        step: the pass as text; FOLDER in it stands for the folder with the LoRA file.
        layer: of LAYERS.
        before: passes whose result it is given, and whose time does not count.
    """

    step: str
    layer: str
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, and seconds that processors worked, all threads together."""

    wall_s: float
    processor_s: float


def linear(K: int, N: int) -> str:
    """The text of a graph with one linear."""
    return f"""g (float[B,{K}] x) => (float[B,{N}] y) <float[{K},{N}] "w.weight"> {{
        y = MatMul (x, "w.weight") }}"""


LAYERS = {
    "3072 x 3072": linear(3072, 3072),
    "3072 x 12288": linear(3072, 12288),
    "12288 x 3072": linear(12288, 3072),
    "Gemm 3072 x 3072": """g (float[B,3072] x) => (float[B,3072] y) <float[3072,3072] w, float[3072] bias> {
        y = Gemm <transB = 1> (x, w, bias) }""",
    "attention 1280": attention_text(biased=False, source="x")
    .replace("24", "1280")
    .replace("32]", "1280]")
    .replace("[32,", "[1280,")
    .replace("{0, 0, 32}", "{0, 0, 1280}")
    .replace("{0, 0, 4, 8}", "{0, 0, 20, 64}"),
    "convolution 640": """g (float[B,640,16,16] x) => (float[B,640,16,16] y) <float[640,640,3,3] w> {
        y = Conv <pads = [1, 1, 1, 1]> (x, w) }""",
    "normalized 640": """g (float[B,640,16,16] x) => (float[B,640,16,16] y)
        <float[640,640,3,3] w, float[640] scale, float[640] shift> {
        n = GroupNormalization <num_groups = 32> (x, scale, shift)
        y = Conv <pads = [1, 1, 1, 1]> (n, w) }""",
}
CASES = (
    Case("canonicalize", "Gemm 3072 x 3072"),
    Case(f"fuse-lora{{path=FOLDER/{LORA}}}", "3072 x 3072"),
    Case("compress-heads", "attention 1280"),
    Case("quantize-int8", "convolution 640"),
    Case("smooth{optional=true}", "3072 x 3072"),
    Case("rotate{optional=true}", "3072 x 3072"),
    Case("allocate", "3072 x 3072"),
    Case("split-subspace", "3072 x 3072"),
    Case("split-low-rank", "3072 x 3072"),
    Case("split-low-rank{calibrated=false,refinements=0}", "3072 x 3072"),
    Case("split-low-rank{calibrated=false,refinements=0}", "3072 x 12288"),
    Case('quantize-int8-weights{only=["w.weight"]}', "3072 x 3072"),
    Case("quantize-int4", "3072 x 3072"),
    Case("quantize-int4{rounding=gptq}", "3072 x 3072"),
    Case("quantize-int4{rounding=gptq}", "12288 x 3072"),
    Case("quantize-int4{rounding=scale-estimation}", "3072 x 3072"),
    Case("quantize-activations", "3072 x 3072", ("quantize-int4",)),
    Case("integer-products", "convolution 640", ("quantize-int8",)),
    Case("dynamic-products", "3072 x 3072", ("quantize-int4",)),
    Case("fuse-attention", "attention 1280"),
    Case("normalize-groups", "normalized 640"),
    Case("cast", "3072 x 3072"),
)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="passes whose text begins so")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    wanted = [case for case in CASES if case.step.startswith(arguments.only)]
    if arguments.measure:
        arguments.measure.write_text(
            json.dumps([asdict(measured(case)) for case in wanted]), encoding="utf-8"
        )
        return 0
    one, two = (times(arguments.only, threads) for threads in (1, 2))
    rows = [HEAD, "|---|---|---:|---:|---:|---:|---:|---:|"]
    for case, alone, both in zip(wanted, one, two, strict=True):
        weights = count_weights(model_of(LAYERS[case.layer]))
        figures = [
            f"{seconds:.2f}"
            for took in (alone, both)
            for seconds in (took.wall_s, took.processor_s, took.processor_s / weights * 1e6)
        ]
        rows.append(f"| `{case.step}` | {case.layer} | {' | '.join(figures)} |")
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


def times(only: str, threads: int) -> list[Took]:
    """What each case takes in a process that was begun with so many threads."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    with tempfile.TemporaryDirectory(prefix="latentc-bench-") as place:
        found = Path(place) / "seconds.json"
        command = [sys.executable, "-m", "tests.bench.pass_speed", "--only", only, "--measure", str(found)]
        # what NNCF prints on the way is no part of the table
        subprocess.run(command, check=True, env=os.environ | counts, stdout=subprocess.DEVNULL)
        return [Took(**took) for took in json.loads(found.read_text(encoding="utf-8"))]


def measured(case: Case) -> Took:
    """Median times of ``case``."""
    found: list[Took] = []
    with tempfile.TemporaryDirectory(prefix="latentc-bench-") as place:
        folder = Path(place)
        model = model_of(LAYERS[case.layer])
        context = recorded(model, folder)
        for text in case.before:
            model = pass_from_text(text)(model, context).model
        write_model(model, folder / "before")
        step = pass_from_text(case.step.replace("FOLDER", place))
        while len(found) < 3 and sum(took.wall_s for took in found) < ENOUGH_S:
            model = read_model(folder / "before")
            fresh = PassContext(calibration=folder, gains=folder)
            began = time.perf_counter(), time.process_time()
            write_model(step(model, fresh).model, folder / "after")
            found.append(Took(time.perf_counter() - began[0], time.process_time() - began[1]))
    seen = ", ".join(f"{took.wall_s:.2f} s ({took.processor_s:.2f} s)" for took in found)
    sys.stderr.write(f"{case.step} on {case.layer}: {seen}\n")
    return Took(
        statistics.median(took.wall_s for took in found),
        statistics.median(took.processor_s for took in found),
    )


def recorded(model: ir.Model, folder: Path) -> PassContext:
    """Inputs, rows, gains and a LoRA of rank 16 for the linears of ``model``."""
    generator = np.random.default_rng(0)

    def drawn(*sides: int) -> np.ndarray:
        loud = np.exp(np.random.default_rng(1).standard_normal(sides[-1]))
        return (generator.standard_normal(sides) * loud).astype(np.float32)

    (x,) = model.graph.inputs
    sides = [side if isinstance(side, int) else None for side in x.shape or ()]
    for number in range(RECORDS):
        free = iter([TOKENS] if len(sides) == 2 else [1, TOKENS])
        np.savez(folder / f"{number:04d}.npz", x=drawn(*(next(free) if s is None else s for s in sides)))
    (folder / ROWS).mkdir()
    linears = list(find_linears(model.graph))
    for one in linears:
        for kind in RowKind:
            np.save(rows_file(folder / ROWS, one.name, kind), drawn(ROWS_KEPT, one.shape[0]))
    write_gains({one.name: 1.0 for one in linears}, folder)
    if linears:
        K, N = linears[0].shape
        factors = {"w.lora_A.weight": values("down", (16, K)), "w.lora_B.weight": values("up", (N, 16))}
        save_file({f"unet.{key}": array for key, array in factors.items()}, folder / LORA)
    return PassContext(calibration=folder, gains=folder)


def count_weights(model: ir.Model) -> int:
    """Weights of the linears and convolutions of ``model``."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    shapes = [shape_of(tensor) for tensor in tensors if tensor is not None]
    return sum(math.prod(shape) for shape in shapes if len(shape) in (2, 4))


def unmeasured() -> set[str]:
    """Passes of the catalogue that no case is of."""
    return {one.name for one in PASSES} - {case.step.partition("{")[0] for case in CASES}


if __name__ == "__main__":
    if missing := unmeasured():
        raise SystemExit(f"no case of {', '.join(sorted(missing))}")
    sys.exit(main())
