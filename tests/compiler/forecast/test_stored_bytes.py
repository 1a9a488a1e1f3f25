"""Stored bytes: what is foretold of a tiny UNet's files is what they take."""

from pathlib import Path

import pytest
from tests.tiny_models import write_tiny_stable_diffusion

from latentc.compiler.forecast.passes import foretell
from latentc.compiler.forecast.stored_bytes import stored_bytes
from latentc.compiler.forecast.trace import TRACE_FILE, trace_from_json
from latentc.compiler.forecast.weightless_graph import weightless_graph
from latentc.compiler.model_folder import open_model
from latentc.compiler.stage import Stage
from latentc.compiler.stages.export import Export
from latentc.compiler.stages.lower import Lower
from latentc.compiler.stages.trace import TraceCall
from latentc.compiler.stages.transform import Transform
from latentc.passes.pass_text import pass_from_text
from latentc.recipes.family import Component
from latentc.recipes.target import target_named
from latentc.runtime.manifest import Json

PASSES = ("canonicalize", "split-low-rank{rank=16,max_ratio=0.5,calibrated=false}", "quantize-int4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The transformed UNet, and its trace."""
    root = tmp_path_factory.mktemp("stored")
    model = open_model(write_tiny_stable_diffusion(root / "model"))
    folder = model.folder_of(Component.UNET)
    config = (model.family.name, "unet", folder.class_name, folder.config_json)
    run(TraceCall(*config, (("B", 1), ("T", 16), ("h", 16), ("w", 16))), {}, root / "trace")
    run(Export(*config), {}, root / "export")
    transform = Transform("unet", PASSES, model.root, model.digest_of(Component.UNET))
    run(transform, {"export": root / "export"}, root / "transform")
    return root


def run(stage: Stage, inputs: dict[str, Path], out: Path) -> None:
    out.mkdir()
    stage.run(inputs, out, lambda fraction, words: None)


@pytest.mark.parametrize("name", ["onnx", "ort-mobile", "ort-x86"])
def test_files_take_what_was_foretold(made: Path, name: str) -> None:
    trace = trace_from_json((made / "trace" / TRACE_FILE).read_text(encoding="utf-8"))
    graph = foretell(weightless_graph(trace, "unet"), [pass_from_text(text) for text in PASSES])
    foretold = stored_bytes(graph, target_named(name))
    out = made / name
    run(Lower(name, "unet"), {"transform": made / "transform"}, out)
    files = sum(path.stat().st_size for path in out.iterdir() if path.name != "component.json")
    weights = entry(out)["weight_bytes"]
    assert isinstance(weights, int)
    # what is not exact are constants that the exporter computes, such as frequencies of the time embedding
    assert foretold.weights == pytest.approx(weights, rel=0.005)
    # of so small a model a tenth is names and nodes
    assert foretold.total == pytest.approx(files, rel=0.06)


def entry(out: Path) -> dict[str, Json]:
    import json

    found: dict[str, Json] = json.loads((out / "component.json").read_text(encoding="utf-8"))["entry"]
    return found
