"""What `latentc plan` foretells against what builds and runs take: bytes, memory and seconds.

    python -m tests.bench.plan_accuracy --home .latentc/bench-plan [--only NAME]…

Every case is built from nothing in a process of its own, which writes down each step's seconds, processor
seconds and largest resident memory; then its bundles are opened as `latentc bench` does. What was measured is
kept; what is foretold, from the configs, is asked for whenever the tables are printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.plan_models import write_middle_flux, write_middle_stable_diffusion

FEW = ("validation.count=8", "sampling.steps=8", "calibration.count=4", "calibration.samples=8")
QUICK = (*FEW, "validation.clip=null", "validation.limits={}")
MIDDLE = """
name: {name}
model: {{path: {name}}}
sampling: {{scheduler: {scheduler}, steps: 4, guidance: {guidance}, height: 256, width: 256}}
targets: [{target}]
passes:
  denoiser: [{passes}]
calibration: {{count: 2, samples: 4}}
validation: {{count: 4}}
"""
DATA_FREE = "canonicalize, {split-low-rank: {calibrated: false, refinements: 0}}, quantize-int4"


@dataclass(frozen=True)
class Case:
    """A recipe with changes, for some targets."""

    name: str
    recipe: str
    targets: tuple[str, ...]
    changes: tuple[str, ...] = ()


CASES = (
    Case("sd", "shapes-sd", ("ort-mobile", "ort-x86", "jetson-orin-nano-8gb"), FEW),
    Case("sd-style", "shapes-sd-style", ("onnx",), QUICK),
    Case("sd-lcm", "shapes-sd-lcm", ("ort-mobile",), ("validation.count=16", "calibration.count=4")),
    Case("sd-plain", "shapes-sd", ("onnx",), (*QUICK, "passes.denoiser=[canonicalize]")),
    Case("flux", "shapes-flux", ("ort-mobile", "onnx"), FEW),
    Case("flux-int4", "shapes-flux", ("jetson-orin-nano-8gb",),
         (*QUICK, "passes.denoiser=[canonicalize, quantize-int4]")),
    Case("middle-sd", "middle-sd", ("ort-mobile",)),
    Case("middle-sd-float", "middle-sd", ("onnx",), ("passes.denoiser=[canonicalize]",)),
    Case("middle-flux", "middle-flux", ("ort-mobile",)),
    Case("middle-flux-int4", "middle-flux", ("onnx",), ("passes.denoiser=[canonicalize, quantize-int4]",)),
)  # fmt: skip


def main() -> int:
    """Build what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(".latentc/bench-plan"))
    parser.add_argument("--only", action="append", default=[], help="name of a case; repeatable")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    home: Path = arguments.home
    home.mkdir(parents=True, exist_ok=True)
    if arguments.child:
        measure(next(case for case in CASES if case.name == arguments.child), home)
        return 0
    rows = []
    for case in CASES:
        if arguments.only and case.name not in arguments.only:
            continue
        if not result_file(case, home).is_file():
            command = [sys.executable, "-m", "tests.bench.plan_accuracy", "--home", str(home)]
            subprocess.run([*command, "--child", case.name], check=True)
        measured = json.loads(result_file(case, home).read_text(encoding="utf-8"))
        rows.append((case.name, measured | {"foretold": foretold_of(case, home)}))
    sys.stdout.write("\n".join(lines_of(rows)) + "\n")
    return 0


def result_file(case: Case, home: Path) -> Path:
    """Where the figures of ``case`` are kept."""
    return home / f"{case.name}.json"


def recipe_of(case: Case, home: Path) -> str:
    """The recipe's name or file; models of random weights are made when they are missing."""
    if not case.recipe.startswith("middle-"):
        return case.recipe
    is_flux = case.recipe == "middle-flux"
    if not (home / case.recipe / "model_index.json").is_file():
        (write_middle_flux if is_flux else write_middle_stable_diffusion)(home / case.recipe)
    text = MIDDLE.format(
        name=case.recipe,
        scheduler="flow-match-euler" if is_flux else "ddim",
        guidance="1.0" if is_flux else "3.0",
        target="onnx",
        passes=DATA_FREE,
    )
    file = home / f"{case.recipe}.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


class Watch:
    """An observer that writes down what each step takes."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self._began = (0.0, 0.0)

    def started(self, label: str, number: int, total: int, why: str, seconds_left: float | None) -> None:
        from latentc.runtime.measure import reset_peak_memory

        reset_peak_memory()
        self._began = (time.monotonic(), processor_seconds())

    def progressed(self, fraction: float, words: str) -> None:
        pass

    def finished(self, label: str, duration_s: float, cached: bool) -> None:
        from latentc.runtime.measure import peak_memory_mib

        self.steps[label] = {
            "seconds": time.monotonic() - self._began[0],
            "processor_s": processor_seconds() - self._began[1],
            "peak_mib": peak_memory_mib(),
        }


def processor_seconds() -> float:
    """Of this process and the children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def foretold_of(case: Case, home: Path) -> dict[str, object]:
    """What `latentc plan --json` says of ``case``."""
    from latentc.compiler.forecast.prediction import predict
    from latentc.compiler.plan_states import plan_states
    from latentc.compiler.store import Store
    from latentc.recipes.load import load_recipe, recipe_file

    loaded = load_recipe(recipe_file(recipe_of(case, home)), list(case.changes))
    kept = Store(home / "store")
    planned = plan_states(loaded, case.targets, kept)
    labels = [state.step.label for state in planned.states]
    return {**predict(loaded, planned.model, case.targets, labels, kept).to_json()}


def measure(case: Case, home: Path) -> None:
    """Build ``case``, run it, and write all figures down."""
    from latentc.compiler.build import build_recipe
    from latentc.compiler.store import Store
    from latentc.recipes.load import load_recipe, recipe_file

    loaded = load_recipe(recipe_file(recipe_of(case, home)), list(case.changes))
    watch = Watch()
    with tempfile.TemporaryDirectory(dir=home) as place:
        out = Path(place) / "out"
        build_recipe(loaded, case.targets, out, Store(Path(place) / "store"), watch, force=True)
        bundles = {target: dict(sizes(out / target)) for target in case.targets}
        runs = {target: run(out / target) for target in case.targets if not target.startswith("jetson")}
    data = {"steps": watch.steps, "bundles": bundles, "runs": runs}
    result_file(case, home).write_text(json.dumps(data, indent=1), encoding="utf-8")


def sizes(bundle: Path) -> Iterator[tuple[str, int]]:
    """Bytes of each component's files, and of the bundle."""
    from latentc.runtime.bundle import open_bundle

    manifest = open_bundle(bundle).manifest
    for name in manifest.components:
        yield (
            name,
            sum(entry.size_bytes for file, entry in manifest.files.items() if file.startswith(f"{name}/")),
        )
    yield "all", sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())


def run(bundle: Path) -> dict[str, dict[str, float]]:
    """What `latentc bench` says of each component, in a process that has not built anything."""
    command = [sys.executable, "-m", "latentc", "bench", str(bundle), "--runs", "5", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {row["component"]: row for row in json.loads(done.stdout)}


def lines_of(rows: Sequence[tuple[str, dict[str, object]]]) -> Iterator[str]:
    """Markdown: bytes of bundles, then memory and seconds of steps, then those of runs."""
    for title, found in (("bytes", bytes_rows), ("steps", step_rows), ("runs", run_rows)):
        yield f"\n**{title}**\n\n| case | what | foretold | measured | ratio |\n|---|---|---:|---:|---:|"
        for name, data in rows:
            for what, foretold, measured in found(json.loads(json.dumps(data))):
                ratio = f"{foretold / measured:.3f}" if measured else ""
                yield f"| {name} | {what} | {foretold:.4g} | {measured:.4g} | {ratio} |"


def bytes_rows(data: dict[str, object]) -> Iterator[tuple[str, float, float]]:
    """Of every bundle."""
    parsed = json.loads(json.dumps(data))
    for bundle in parsed["foretold"]["bundles"]:
        measured = parsed["bundles"][bundle["target"]]
        yield f"{bundle['target']}, MB", bundle["total_bytes"] / 1e6, measured["all"] / 1e6


def step_rows(data: dict[str, object]) -> Iterator[tuple[str, float, float]]:
    """The build's seconds, its largest step in memory, and steps of more than a second."""
    parsed = json.loads(json.dumps(data))
    foretold = {one["label"]: one for one in parsed["foretold"]["stages"]}
    steps = parsed["steps"]
    yield (
        "all, s",
        sum(foretold[label]["seconds"] for label in steps),
        sum(s["seconds"] for s in steps.values()),
    )
    peak = max(foretold[label]["peak_bytes"] for label in steps) / 2**20
    yield "largest, MiB", peak, max(step["peak_mib"] for step in steps.values())
    for label, step in steps.items():
        if step["seconds"] > 1:
            yield f"{label}, s", foretold[label]["seconds"], step["seconds"]
        if step["seconds"] > 1 or foretold[label]["peak_bytes"] / 2**20 > 1.1 * step["peak_mib"]:
            yield f"{label}, MiB", foretold[label]["peak_bytes"] / 2**20, step["peak_mib"]


def run_rows(data: dict[str, object]) -> Iterator[tuple[str, float, float]]:
    """The largest component's memory, and the denoiser's seconds."""
    parsed = json.loads(json.dumps(data))
    devices = {one["target"]: one for one in parsed["foretold"]["devices"]}
    for target, components in parsed["runs"].items():
        peak = max(row["memory_mib"] for row in components.values())
        yield f"{target}, MiB", devices[target]["sequential_bytes"] / 2**20, peak
        step = next(row for name, row in components.items() if name in ("unet", "transformer"))
        here = next(one for one in parsed["foretold"]["speeds"] if one["device"] == f"this CPU, {target}")
        yield f"{target}, ms a step", 1000 * here["step_s"], step["latency_ms"]


if __name__ == "__main__":
    sys.exit(main())
