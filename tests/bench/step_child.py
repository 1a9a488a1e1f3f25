"""One way to run a denoiser step, timed alone: ``step_child.py KIND MODEL FOLDER`` prints a line of JSON.

Uses nothing of latentc, so that an environment of peers can run it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 3
THREADS = 2
Run = Callable[[], "list[np.ndarray[Any, Any]]"]


def onnxruntime_run(model: str, inputs: Mapping[str, Any], ours: bool) -> Run:
    """A session with two threads; ``ours`` opens it as latentc.runtime does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    if ours:
        options.enable_mem_reuse = False
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = {given.name for given in session.get_inputs()}
    fed = {name: array for name, array in inputs.items() if name in names}
    return lambda: session.run(None, fed)


def openvino_run(model: str, inputs: Mapping[str, Any]) -> Run:
    """A model compiled for the CPU, with two threads."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    )
    return lambda: list(compiled(dict(inputs)).values())


def main() -> None:
    """Load, run some steps, compare with what float32 gave, which the first caller leaves in the folder."""
    kind, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    inputs = dict(np.load(folder / "inputs.npz"))
    started = time.perf_counter()
    if kind == "openvino":
        run = openvino_run(model, inputs)
    else:
        run = onnxruntime_run(model, inputs, ours=kind == "latentc")
    load_s = time.perf_counter() - started
    walls: list[float] = []
    processors: list[float] = []
    for _ in range(STEPS):
        wall, processor = time.perf_counter(), time.process_time()
        (seen,) = run()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    float_output = folder / "float.npy"
    if not float_output.is_file():
        np.save(float_output, seen)
    wanted = np.load(float_output)
    found = {
        "step_s": min(walls),
        "step_cpu_s": min(processors),
        "load_s": load_s,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "error": float(np.linalg.norm(seen - wanted) / np.linalg.norm(wanted)),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
