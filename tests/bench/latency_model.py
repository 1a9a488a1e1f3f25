"""The latency model against what onnxruntime takes: linears as they are stored, lowered and run on a CPU.

    python -m tests.bench.latency_model

Every way to store a linear goes through the passes and into an .ort file, many different weights of it in
one graph, so that no cache holds them, as none holds a denoiser's. One thread, and seconds of the processor:
others that use the machine change these least. Each figure is the least of some runs, in which the shapes of
one way take turns. What a session and the nodes that cut the results down cost is measured alone and taken
off.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.passes.graphs import model_of

from latentc.compiler.stages.ort_format import ORT_FILE, ort_from_onnx
from latentc.passes.allocate import Allocate
from latentc.passes.allotment import Allotment, Precision
from latentc.passes.base import Pass, PassContext
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.latency import Latency, latency_of
from latentc.passes.low_rank import BranchType
from latentc.passes.model_file import write_model
from latentc.passes.model_writer import GRAPH_FILE
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights
from latentc.passes.sequence import run_passes
from latentc.passes.split_low_rank import SplitLowRank
from latentc.runtime.onnxruntime_session import OnnxruntimeSession

DEVICE = "ort-mobile"
SHAPES = ((320, 320), (320, 2560), (1280, 320), (1280, 1280), (3072, 3072))
ROWS = (1, 16, 64, 256, 1024)
REPEATS = 3
LONGEST_S = 0.06
"""Of a run, as modelled; larger cases have fewer weights, and the largest are left out."""
COLD_BYTES, MOST = 64e6, 32
HEAD = "| way | [K, N] | rows | modelled us | measured us | ratio | of float: modelled | measured |"


@dataclass(frozen=True)
class Way:
    """How a linear is stored, and the group of its INT4 weights."""

    allotment: Allotment
    group: int = 64

    def __str__(self) -> str:
        grouped = self.allotment.precision is Precision.INT4
        return f"{self.allotment}, groups of {self.group}" if grouped else str(self.allotment)


@dataclass(frozen=True)
class Case:
    """A way at one size, with ``rows`` rows a call."""

    way: Way
    K: int
    N: int
    rows: int

    def modelled_s(self, latency: Latency) -> float:
        """Seconds by the roofline."""
        return latency.linear(self.K, self.N, self.rows, self.way.allotment, self.way.group, BranchType.INT8)


FLOAT = Way(Allotment(Precision.FLOAT))
WAYS = (
    FLOAT,
    Way(Allotment(Precision.INT8)),
    *(Way(Allotment(Precision.INT4), group) for group in (16, 32, 64, 128)),
    Way(Allotment(Precision.INT4, 16)),
)


def main() -> int:
    """Print the table and how far the model is off."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, help="runs of each case")
    arguments = parser.parse_args()
    latency = latency_of(DEVICE, "bench")
    cases = [
        case
        for K, N in SHAPES
        for way in WAYS
        if K % way.group == 0
        for rows in ROWS
        if 2 * (case := Case(way, K, N, rows)).modelled_s(latency) <= LONGEST_S
    ]
    measured = {
        case: seconds
        for group in _by_graph(cases, latency)
        for case, seconds in run(*group, arguments.repeats)
    }
    sys.stdout.write("\n".join([HEAD, "|---|---|---:|---:|---:|---:|---:|---:|"]) + "\n")
    ratios, shares = [], []
    for case in cases:
        modelled_s, measured_s = case.modelled_s(latency), measured[case]
        ratios.append(modelled_s / measured_s)
        cells = [str(case.way), f"{case.K}, {case.N}", str(case.rows), f"{1e6 * modelled_s:.1f}"]
        cells += [f"{1e6 * measured_s:.1f}", f"{ratios[-1]:.2f}"]
        plain = Case(FLOAT, case.K, case.N, case.rows)
        if plain in measured and case.way is not FLOAT:
            foretold, seen = modelled_s / plain.modelled_s(latency), measured_s / measured[plain]
            shares.append(foretold / seen)
            cells += [f"{foretold:.2f}", f"{seen:.2f}"]
        else:
            cells += ["", ""]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
    for name, found in (("seconds", ratios), ("share of float", shares)):
        worst = max(found, key=lambda ratio: abs(math.log(ratio)))
        near = sum(abs(math.log(ratio)) <= math.log(1.5) for ratio in found)
        sys.stdout.write(
            f"{name}, modelled / measured: median {statistics.median(found):.2f}, worst {worst:.2f}, "
            f"{near} of {len(found)} within a factor of 1.5\n"
        )
    return 0


def _by_graph(cases: Sequence[Case], latency: Latency) -> list[tuple[list[Case], int]]:
    """Cases that one graph serves, with the number of its weights."""
    found: dict[tuple[Way, int, int, int], list[Case]] = {}
    for case in cases:
        few = LONGEST_S / case.modelled_s(latency)
        cold = COLD_BYTES / case.way.allotment.weight_bytes(case.K, case.N, case.way.group, BranchType.INT8)
        copies = 2 ** int(math.log2(max(2, min(few, cold, MOST))))
        found.setdefault((case.way, case.K, case.N, copies), []).append(case)
    return [(group, copies) for (_, _, _, copies), group in found.items()]


def run(cases: Sequence[Case], copies: int, repeats: int) -> list[tuple[Case, float]]:
    """Processor seconds of each of ``cases``, which differ in their rows alone."""
    first = cases[0]
    sessions = [session_of(first.way, first.K, first.N, copies), session_of(None, first.K, first.N, copies)]
    generator = np.random.default_rng(0)
    evict = np.ones(24_000_000, np.float32)
    least = {case: [math.inf, math.inf] for case in cases}
    for _ in range(repeats):
        for case in cases:
            x = generator.standard_normal((1, case.rows, case.K), dtype=np.float32)
            for index, session in enumerate(sessions):
                evict.sum()
                began = time.process_time()
                session.run({"x": x})
                least[case][index] = min(least[case][index], time.process_time() - began)
    return [(case, (whole - around) / copies) for case, (whole, around) in least.items()]


def session_of(way: Way | None, K: int, N: int, copies: int) -> OnnxruntimeSession:
    """A session of ``copies`` linears of one input, each cut down to one number; None: the cutting alone."""
    numbers = range(copies)
    multiply = "y{0} = MatMul (x, w{0})" if way else "y{0} = Identity (x)"
    lines = [
        f"{multiply.format(n)} a{n} = Gather <axis = 1> (y{n}, zero) o{n} = Gather <axis = 2> (a{n}, zero)"
        for n in numbers
    ]
    weights = f"<{', '.join(f'float[{K},{N}] w{n}' for n in numbers)}>" if way else ""
    outputs = ", ".join(f"float[B,P,Q] o{n}" for n in numbers)
    body = " ".join(["zero = Constant <value = int64[1] {0}> ()", *lines])
    text = f"g (float[B,T,{K}] x) => ({outputs}) {weights} {{ {body} }}"
    passes: list[Pass] = [Canonicalize(optional=True)]
    if way:
        plan = tuple(f"w{n}={way.allotment}" for n in numbers)
        passes += [
            Allocate(plan=plan, group=way.group),
            SplitLowRank(calibrated=False, refinements=0, optional=True, group=way.group),
            QuantizeInt8Weights(optional=True),
            QuantizeInt4(optional=True, group=way.group),
        ]
    model, _ = run_passes(model_of(text), passes, PassContext())
    with tempfile.TemporaryDirectory(prefix="latentc-bench-") as place:
        write_model(model, Path(place))
        ort_from_onnx(Path(place) / GRAPH_FILE, Path(place) / ORT_FILE)
        return OnnxruntimeSession(
            "bench", (Path(place) / ORT_FILE).read_bytes(), threads=1, int8_activations=True
        )


if __name__ == "__main__":
    sys.exit(main())
