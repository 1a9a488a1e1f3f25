"""Transform: an exported graph and its weights, through the recipe's passes, to a component model folder.

out/model.onnx, out/model.onnx.data   float32 with INT4 and INT8 Q/DQ, the same for every target
out/passes.json                       what each pass changed, left alone and lost
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from latentc.compiler.budget import Budget
from latentc.compiler.finished_units import FinishedUnits, share_finished
from latentc.compiler.stage import Progress, ResumableStage
from latentc.compiler.toolchain import threads, versions
from latentc.runtime.manifest import Json

if TYPE_CHECKING:
    import onnx_ir as ir

    from latentc.passes.base import LossLedger, Pass
    from latentc.passes.sequence import PassReport

PASSES_FILE = "passes.json"


@dataclass(frozen=True)
class Transform(ResumableStage):
    """Bind the weights of one component and run its passes. A unit is a layer.

    Args:
        component: value of a latentc.recipes.family.Component.
        passes: as text, in order; latentc.passes.pass_text reads them. Empty: the graph as exported.
        model_root: the pipeline's folder; not part of the identity, its weights are.
        weights_digest: ModelFolder.digest_of the component.
        checkpoint: one file with weights, as open_model takes it; not part of the identity either.
        budget: of the machine; no part of the identity.
    """

    name: ClassVar[str] = "transform"
    version: ClassVar[int] = 1

    component: str
    passes: tuple[str, ...]
    model_root: Path
    weights_digest: str
    checkpoint: Path | None = None
    budget: Budget = field(default_factory=Budget)
    _parsed: dict[str, Pass] = field(default_factory=dict, init=False, repr=False, compare=False)

    def options(self) -> dict[str, Json]:
        """Passes with their versions and files, the weights, and the packages that compute."""
        return {
            "component": self.component,
            "passes": [self._pass(text).identity() for text in self.passes],
            "weights": self.weights_digest,
            "toolchain": dict(versions("onnx", "onnx-ir", "numpy", "nncf")),
            "threads": threads() if any(self._pass(text).needs_calibration for text in self.passes) else 1,
        }

    def resume(self, inputs: Mapping[str, Path], out: Path, units: Path, progress: Progress) -> None:
        """Write the model folder from ``inputs["export"]`` and what was recorded for the passes.

        ``inputs["calibration"]`` and ``inputs["sensitivity"]`` are given when a pass asks for them.

        Raises:
            PassError: a pass does not fit the graph.
            ModelError: the checkpoint does not fit the graph, or an adapter cannot be read.
            ResourceError: disk or memory are too small.
        """
        from latentc.compiler.bindings import bind
        from latentc.compiler.model_folder import open_model
        from latentc.compiler.write_layers import write_layers
        from latentc.passes.base import PassContext
        from latentc.passes.model_writer import DATA_FILE, ModelWriter
        from latentc.passes.sequence import run_passes

        kept = share_finished(units)
        progress(0.1 + 0.9 * kept if kept else 0.0, f"{self.component}: binding weights")
        for path in out.iterdir():
            if path.name != DATA_FILE:
                path.unlink()
        model = bind(inputs["export"], open_model(self.model_root, self.checkpoint, read_values=False))
        calibration = inputs.get("calibration")
        context = PassContext(
            calibration=calibration / self.component if calibration else None,
            gains=inputs.get("sensitivity"),
        )
        passes = [self._pass(text) for text in self.passes]
        model, reports = run_passes(model, passes, context)
        forget_folders(model, passes)
        writer = ModelWriter(model, out)
        write_layers(
            writer,
            out,
            context.ledger,
            FinishedUnits(units, len(writer.units)),
            self.budget,
            lambda done, name: progress(0.1 + 0.9 * done, f"{self.component}: {name}"),
        )
        # losses are known only now: they are measured while the weights are written
        reports = tuple(
            replace(report, text=str(placeless(one))) for report, one in zip(reports, passes, strict=True)
        )
        text = passes_to_json(self.component, reports, context.ledger)
        for path in (path for one in passes for path in one.files()):
            text = text.replace(str(path), path.name)  # in what a pass says of a file
        (out / PASSES_FILE).write_text(text, encoding="utf-8")

    def _pass(self, text: str) -> Pass:
        from latentc.passes.pass_text import pass_from_text

        if text not in self._parsed:
            self._parsed[text] = pass_from_text(text)
        return self._parsed[text]


def placeless(one: Pass) -> Pass:
    """``one`` with files named without their folders: where they lie must not change a result's bytes."""
    names = {item.name: getattr(one, item.name) for item in fields(one)}
    short: dict[str, Any] = {
        name: Path(value.name) for name, value in names.items() if isinstance(value, Path)
    }
    return replace(one, **short)


def forget_folders(model: ir.Model, passes: Sequence[Pass]) -> None:
    """Take the folders of the passes' files out of what the passes noted in ``model``."""
    for path in (path for one in passes for path in one.files()):
        for key, note in model.graph.metadata_props.items():
            model.graph.metadata_props[key] = note.replace(str(path), path.name)


def passes_to_json(component: str, reports: Sequence[PassReport], ledger: LossLedger) -> str:
    """Canonical text of what the passes did to ``component``."""
    data = {
        "format": 1,
        "component": component,
        "passes": [asdict(report) for report in reports],
        "losses": [asdict(one) for one in sorted(ledger.losses, key=lambda one: (one.layer, one.pass_name))],
        "trials": [asdict(one) for one in sorted(ledger.trials, key=lambda one: (one.layer, one.way))],
        "front": [asdict(one) for one in ledger.front],
    }
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
