"""Golden files: a pass, a graph before and after, or the refusal. Accept changes with --update-golden.

== pass            the pass as text
== before          the graph in ONNX's text syntax
FOLDER             in a pass: where lora.safetensors of tests/passes/lora_tensors.py lies
== after           our graph text, then what was changed, left alone and lost
== error           instead of ``after``, the whole message
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import inputs_of, model_of
from tests.passes.lora_tensors import write_lora

from latentc.errors import LatentcError
from latentc.passes.base import PassContext
from latentc.passes.catalogue import PASSES
from latentc.passes.graph_text import graph_text
from latentc.passes.layer_gains import write_gains
from latentc.passes.layer_rows import ROWS
from latentc.passes.pass_text import pass_from_text
from latentc.passes.weights import find_linears

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(GOLDEN.glob("*/*.txt"))
SIZES = {"B": 2, "T": 3, "h": 6, "w": 6}


def sections(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split("== ")[1:]:
        title, _, body = part.partition("\n")
        found[title] = body.strip("\n") + "\n"
    return found


def outcome(pass_text: str, before: str, folder: Path) -> str:
    """The sections that follow from the first two."""
    try:
        model = model_of(before)
        write_gains({linear.name: 0.25 for linear in find_linears(model.graph)}, folder)
        context = PassContext(calibration=calibration_of(model, folder), gains=folder)
        write_lora(folder / "lora.safetensors")
        result = pass_from_text(pass_text.strip().replace("FOLDER", str(folder)))(model, context)
        text = graph_text(result.model)
    except LatentcError as error:
        return f"== error\n{error}\n".replace(str(folder), "FOLDER")
    lines = [f"change {change.where}: {change.what}" for change in result.changes]
    lines += [f"refusal {refusal.where}: {refusal.why}" for refusal in result.refusals]
    lines += [f"loss {loss.layer}: {loss.relative_error:.3f}" for loss in context.ledger.losses]
    return f"== after\n{text}" + "".join(f"{line}\n" for line in lines).replace(str(folder), "FOLDER")


def calibration_of(model: ir.Model, folder: Path) -> Path:
    for seed in range(4):
        np.savez(folder / f"{seed:04d}.npz", **inputs_of(model, SIZES, seed))  # type: ignore[arg-type] # stubs
    (folder / ROWS).mkdir()
    for linear in find_linears(model.graph):
        rows = np.random.default_rng(1).standard_normal((40, linear.shape[0])).astype(np.float32)
        rows[:, 3] *= 30  # a channel that sticks out
        np.save(folder / ROWS / f"{linear.name}.fit.npy", rows[:24])
        np.save(folder / ROWS / f"{linear.name}.held_out.npy", rows[24:])
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_golden(case: Path, update_golden: bool, tmp_path: Path) -> None:
    text = case.read_text(encoding="utf-8")
    parts = sections(text)
    wanted = f"== pass\n{parts['pass']}== before\n{parts['before']}"
    wanted += outcome(parts["pass"], parts["before"], tmp_path)
    if update_golden:
        case.write_text(wanted, encoding="utf-8")
    else:
        assert text == wanted


@pytest.mark.parametrize("name", [entry.name for entry in PASSES])
def test_every_pass_has_a_golden_change_and_a_golden_refusal(name: str) -> None:
    texts = [case.read_text(encoding="utf-8") for case in sorted((GOLDEN / name).glob("*.txt"))]
    assert any("\nchange " in text for text in texts), f"tests/golden/{name}/ shows no change"
    assert any("\nrefusal " in text or "== error" in text for text in texts), (
        f"tests/golden/{name}/ shows no refusal"
    )


def test_every_golden_folder_is_of_a_pass() -> None:
    assert {case.parent.name for case in CASES} == {entry.name for entry in PASSES}
