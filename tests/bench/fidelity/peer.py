"""Peer's side of latentc: what Model Optimizer is to draw, and the judgement of what it drew.

It draws from the same noise and prompts as latentc's bundles, is calibrated on the same prompts, and is
judged by the same metrics. That its pipeline is the reference's is checked first, without quantization.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.bench.fidelity.builds import TARGET, build
from tests.bench.fidelity.cells import METRICS, Cell
from tests.bench.fidelity.families import GROUP, Family
from tests.bench.fidelity.methods import Method, chain, fp16_bytes, modelopt_bytes, modelopt_rank

from latentc.compiler.sampling_options import SCHEDULER_CLASSES
from latentc.recipes.load import load_recipe, recipe_file
from latentc.runtime.manifest import Json
from latentc.runtime.noise import initial_latent
from latentc.validation.compare_pictures import compare_latents, compare_pictures
from latentc.validation.draw_pictures import Drawing
from latentc.validation.measured import Measured
from latentc.validation.prompts import read_prompts
from latentc.validation.reference import Reference, read_reference
from latentc.validation.tensor_metrics import sqnr_db

SCRIPT = Path(__file__).with_name("peer_modelopt.py")
SAME_PIPELINE_DB = 60.0
"""How close its unquantized latents have to be to the reference's."""
CALIBRATION_SEEDS = 2**32
"""Where latentc's calibration noise begins."""


@dataclass(frozen=True)
class Peer:
    """Model Optimizer's environment.

    Args:
        python: of an environment with torch, diffusers and nvidia-modelopt.
    """

    python: Path

    def run(self, task: dict[str, Json], folder: Path) -> None:
        """Let the script do ``task``.

        Raises:
            RuntimeError: it fails; with the end of what it said.
        """
        path = folder / "task.json"
        path.write_text(json.dumps(task), encoding="utf-8")
        command = [str(self.python), "-W", "ignore", str(SCRIPT), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"Model Optimizer's run failed: {done.stderr.strip()[-2000:]}")


def measure(
    cells: Sequence[Cell], model: Path, store: Path, peer: Peer
) -> list[tuple[float, dict[str, float]]]:
    """Bytes over fp16 and the figures of METRICS of ``cells``, one row's seeds: it quantizes once for all.

    Raises:
        RuntimeError: the peer fails, its pipeline is not the reference's, or a figure is missing.
    """
    question = cells[0].row.question
    family, rank = question.family, modelopt_rank(question)
    with ExitStack() as stack:
        # the bundles of another row, for the references in them
        nearest = chain(question, Method.NEAREST)
        builds = [stack.enter_context(build(cell, model, nearest, store)) for cell in cells]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentc-peer-")))
        references = [read_reference(out / TARGET / "reference") for out in builds]
        noises: list[Json] = []
        for seed, reference in enumerate(references):
            noises.append(str(folder / f"noise{seed}.npy"))
            np.save(folder / f"noise{seed}.npy", reference.initial_latents())
        task = task_of(family, model, references[0], folder) | {
            "work": "draw",
            "activation_bits": question.setting.bits,
            "rank": rank,
            "noises": noises,
            "out": str(folder),
        }
        peer.run(task, folder)
        share = modelopt_bytes(family, rank) / fp16_bytes(family)
        return [
            (share, _judged(reference, folder / f"drawn{seed}.npz", folder))
            for seed, reference in enumerate(references)
        ]


def task_of(family: Family, model: Path, reference: Reference, folder: Path) -> dict[str, Json]:
    """What every task of the script says; writes the calibration's noise into ``folder``."""
    recipe = load_recipe(recipe_file(family.name)).recipe
    count = len(reference.prompts)
    wanted = recipe.calibration
    prompts = read_prompts(wanted.prompts, count + wanted.count, Path())[count:]
    first = CALIBRATION_SEEDS + wanted.seed
    shape = reference.initial_latents().shape[1:]
    noise = initial_latent(range(first, first + wanted.count), *shape)
    np.save(folder / "calibration.npy", noise)
    treated: list[Json] = [linear.name for linear in family.linears() if not family.is_plain(linear)]
    plain: list[Json] = [linear.name for linear in family.linears() if family.is_plain(linear)]
    token_ids = reference.token_ids()
    return {
        "model": str(model.resolve()),
        "pipeline_class": family.pipeline_class,
        "denoiser": family.denoiser,
        "scheduler_class": SCHEDULER_CLASSES[recipe.sampling.scheduler],
        "steps": reference.steps,
        "guidance": reference.guidance,
        "height": reference.height,
        "width": reference.width,
        "text_tokens": int(token_ids[sorted(token_ids)[-1]].shape[1]),
        "group": GROUP,
        "treated": treated,
        "plain": plain,
        "prompts": list(reference.prompts),
        "trajectory_prompts": reference.trajectory_prompts,
        "calibration": {"prompts": list(prompts), "noise": str(folder / "calibration.npy")},
    }


def _judged(reference: Reference, drawn: Path, folder: Path) -> dict[str, float]:
    with np.load(drawn, allow_pickle=False) as arrays:
        untouched = arrays["untouched"]
        drawing = Drawing(arrays["trajectory"], arrays["final_latents"], tuple(arrays["pictures"]))
    same_db = sqnr_db(untouched, reference.final_latents()[: len(untouched)])
    if not same_db >= SAME_PIPELINE_DB:
        raise RuntimeError(f"unquantized, the peer draws {same_db:.1f} dB from the reference")
    measured = Measured()
    compare_latents(drawing, reference, measured)
    compare_pictures(drawing, reference, measured, folder, threads=1, progress=lambda done, words: None)
    values = {".".join(key): value for key, value in measured.values.items()}
    missing = [name for name in METRICS if name not in values]
    if missing:
        raise RuntimeError(f"not measured: {', '.join(missing)}")
    return {name: values[name] for name in METRICS}
