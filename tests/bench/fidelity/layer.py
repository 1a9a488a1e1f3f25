"""Layer: our SVDQuant against Model Optimizer's on single linears, with the same inputs and smoothing.

Both get the weight of a linear of shapes-flux and recorded rows of what it multiplies, both split off rank 32
and round to INT4 in groups of 64, activations as well; both are judged on rows of other prompts. What differs
is how steps are chosen: Model Optimizer takes the largest magnitude of a group over 7, we search for the step
with the least error and use the code -8. The second figure has its steps, and has to be Model Optimizer's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from tests.bench.fidelity.builds import TARGET, build
from tests.bench.fidelity.cells import Cell, Row
from tests.bench.fidelity.families import GROUP, SHAPES_FLUX
from tests.bench.fidelity.methods import (
    GRID,
    PUBLISHED_RANK,
    REFINEMENTS,
    Ceiling,
    Method,
    Question,
    Setting,
    chain,
)
from tests.bench.fidelity.peer import Peer, task_of

from latentc.passes.base import Pass, PassContext
from latentc.passes.layer_rows import ROWS
from latentc.passes.low_rank import BranchType, low_rank_branch
from latentc.passes.model_file import write_model
from latentc.passes.quantize_activations import QuantizeActivations, rounded_rows
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.smooth import Smooth
from latentc.passes.split_low_rank import SplitLowRank
from latentc.runtime.manifest import Json
from latentc.runtime.whole_file import whole_file
from latentc.validation.reference import read_reference
from latentc.validation.tensor_metrics import sqnr_db
from latentc.validation.typed_json import as_list, as_number, as_object, as_text, json_object

Floats: TypeAlias = NDArray[np.float32]

LAYERS = (
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.1.ff.net.2",
    "single_transformer_blocks.1.proj_mlp",
    "single_transformer_blocks.2.proj_out",
)
"""An attention's query, a down-projection, an up-projection, and one whose input is joined of two."""


@dataclass(frozen=True)
class LayerResult:
    """Output SQNR in dB on held-out rows, W4A4.

    Args:
        layer: its name.
        modelopt: Model Optimizer's.
        same_steps: ours with Model Optimizer's smoothing and steps.
        aligned: our passes with Model Optimizer's smoothing: one SVD, no refinements.
        published: our passes as the table's SVDQuant row has them: own smoothing, refinements.
    """

    layer: str
    modelopt: float
    same_steps: float
    aligned: float
    published: float


def compare_layers(model: Path, store: Path, peer: Peer, out: Path) -> None:
    """Write ``out`` unless it is there: a LayerResult for each of LAYERS.

    Args:
        model: folder of shapes-flux, with or without outliers.
        store: of latentc.
        peer: Model Optimizer's environment.
        out: a JSON file.
    """
    if out.is_file():
        return
    question = Question(SHAPES_FLUX, Setting.W4A4, Ceiling.LITERAL)
    cell = Cell(Row(question, True, Method.NEAREST), 0, 8)
    with (
        build(cell, model, chain(question, Method.NEAREST), store) as built,
        tempfile.TemporaryDirectory(prefix="latentc-layer-") as scratch,
    ):
        folder = Path(scratch)
        reference = read_reference(built / TARGET / "reference")
        layers: list[Json] = list(LAYERS)
        task = task_of(SHAPES_FLUX, model, reference, folder) | {
            "work": "layers",
            "layers": layers,
            "activation_bits": 4,
            "rank": PUBLISHED_RANK,
            "out": str(folder),
        }
        peer.run(task, folder)
        results = [_compared(layer, folder) for layer in LAYERS]
    with whole_file(out) as file:
        told = {"layers": [asdict(result) for result in results]}
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_layers(path: Path) -> tuple[LayerResult, ...]:
    """What compare_layers wrote; nothing while it has not."""
    if not path.is_file():
        return ()
    told = json_object(path, "remove it, and run again")
    return tuple(_result(as_object(row)) for row in as_list(told["layers"]))


def _result(row: dict[str, Json]) -> LayerResult:
    return LayerResult(
        as_text(row["layer"]),
        as_number(row["modelopt"]),
        as_number(row["same_steps"]),
        as_number(row["aligned"]),
        as_number(row["published"]),
    )


def _compared(layer: str, folder: Path) -> LayerResult:
    with np.load(folder / f"{layer}.npz", allow_pickle=False) as arrays:
        weight, fit, held_out = (arrays[key] for key in ("weight", "fit", "held_out"))
        scale, theirs = arrays["scale"], arrays["outputs"]
    wanted = held_out.astype(np.float64) @ weight.T.astype(np.float64)
    scaled = np.asarray((weight / scale).T, np.float32)  # Model Optimizer multiplies inputs by its scale
    rounding: tuple[Pass, ...] = (QuantizeInt4(group=GROUP), QuantizeActivations(bits=4, group=GROUP))
    split, refined = _split(refinements=0), _split(refinements=REFINEMENTS)
    smooth = Smooth(grid=GRID, bits=4, group=GROUP, rank=PUBLISHED_RANK, optional=True)
    rows = held_out * scale
    kept = low_rank_branch(scaled, PUBLISHED_RANK, BranchType.FLOAT16, GROUP, refinements=0).product()
    plain = rows @ kept + rounded_rows(rows, 4, GROUP) @ rounded_rows((scaled - kept).T, 4, GROUP).T
    return LayerResult(
        layer,
        modelopt=sqnr_db(theirs, wanted),
        same_steps=sqnr_db(plain, wanted),
        aligned=sqnr_db(_through((split, *rounding), scaled, fit * scale, rows, folder), wanted),
        published=sqnr_db(_through((smooth, refined, *rounding), weight.T, fit, held_out, folder), wanted),
    )


def _split(refinements: int) -> SplitLowRank:
    return SplitLowRank(
        rank=PUBLISHED_RANK,
        max_ratio=2.0,
        branch=BranchType.FLOAT16,
        group=GROUP,
        refinements=refinements,
        calibrated=False,
    )


def _through(passes: tuple[Pass, ...], weight: Floats, fit: Floats, rows: Floats, folder: Path) -> Floats:
    """What a linear of ``weight`` [K, N] gives for ``rows`` after ``passes``, which may look at ``fit``."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        records = Path(scratch) / "records"
        (records / ROWS).mkdir(parents=True)
        np.savez(records / "0000.npz", x=fit)
        third = len(fit) // 3
        np.save(records / ROWS / "w.fit.npy", fit[third:])
        np.save(records / ROWS / "w.held_out.npy", fit[:third])
        context = PassContext(calibration=records)
        model = _linear(weight)
        for one in passes:
            model = one(model, context).model
        write_model(model, Path(scratch) / "model")
        session = ort.InferenceSession(
            str(Path(scratch) / "model" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        return np.asarray(next(iter(session.run(None, {"x": rows}))), np.float32)


def _linear(weight: Floats) -> ir.Model:
    K, N = weight.shape
    text = (
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[B,{K}] x) => (float[B,{N}] y) {{ '
        "y = MatMul (x, w) }"
    )
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(weight), "w"))
    return ir.from_proto(proto)


def lines_of(results: tuple[LayerResult, ...]) -> Iterator[str]:
    """A markdown table."""
    yield "| linear | Model Optimizer | ours with its steps | ours, its smoothing | ours as published |"
    yield "|---|---:|---:|---:|---:|"
    for one in results:
        figures = (one.modelopt, one.same_steps, one.aligned, one.published)
        yield f"| {one.layer} | {' | '.join(f'{figure:.2f}' for figure in figures)} |"
