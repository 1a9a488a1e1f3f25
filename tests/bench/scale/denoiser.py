"""Denoiser: export one, quantize it without data, in a store; a child of tests.bench.scale.run.

    python -m tests.bench.scale.denoiser MODEL STORE MEMORY_MIB WORKERS PASS ...

MODEL is a pipeline in diffusers' layout. Says each step's seconds, and the folder of the result.
"""

from __future__ import annotations

import sys
from pathlib import Path

from latentc.compiler.budget import Budget
from latentc.compiler.model_folder import open_model
from latentc.compiler.plan import Plan
from latentc.compiler.run import run_plan
from latentc.compiler.stage import Step
from latentc.compiler.stages.export import Export
from latentc.compiler.stages.transform import Transform
from latentc.compiler.store import Store


class Steps:
    """An observer that says what a step took."""

    def started(self, label: str, number: int, total: int, why: str, seconds_left: float | None) -> None:
        """Say nothing."""

    def progressed(self, fraction: float, words: str) -> None:
        """Say nothing."""

    def finished(self, label: str, duration_s: float, cached: bool) -> None:
        """Say how long it took."""
        sys.stdout.write(f"step {label} {duration_s:.1f} {'cached' if cached else 'made'}\n")
        sys.stdout.flush()


def main(root: Path, store: Path, memory_mib: int, workers: int, passes: tuple[str, ...]) -> None:
    """Build, then print where the result lies."""
    model = open_model(root, read_values=False)
    component = model.family.denoiser
    folder = model.folder_of(component)
    export = Step(
        "export", Export(model.family.name, str(component), folder.class_name, folder.config_json), {}
    )
    budget = Budget(workers, memory_mib << 20 if memory_mib else None)
    # the weights are random, so their digest says nothing that the folder's name does not
    transform = Step(
        "transform",
        Transform(str(component), passes, root, root.name, budget=budget),
        {"export": export},
    )
    artifacts = run_plan(Plan("scale", (export, transform)), Store(store), Steps())
    sys.stdout.write(f"result {artifacts['transform'].path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), tuple(sys.argv[5:]))
