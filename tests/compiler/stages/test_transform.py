from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from tests.compiler.conftest import ExportOf
from tests.compiler.small_component import small_component
from tests.passes.graphs import inputs_of, relative_error, run_model

from latentc.compiler.bindings import bind
from latentc.compiler.model_folder import open_model
from latentc.compiler.stages.transform import Transform, forget_folders, placeless
from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.calibration import inner_values
from latentc.passes.canonicalize import Canonicalize
from latentc.passes.fuse_lora import FuseLora
from latentc.passes.layer_rows import ROWS, RowKind, rows_file
from latentc.passes.rotate import Rotate
from latentc.passes.smooth import Smooth
from latentc.passes.weight_bytes import weigh
from latentc.passes.weights import Array, find_linears, name_of
from latentc.recipes.family import Component

SHAPES = Path(__file__).parents[3] / "recipes" / "shapes" / "weights"
PASSES = ("canonicalize", "split-low-rank{rank=8, max_ratio=1.0, calibrated=false}", "quantize-int4")


def stage(model: Path, passes: tuple[str, ...] = PASSES) -> Transform:
    digest = open_model(model, read_values=False).digest_of(Component.TEXT_ENCODER)
    return Transform("text_encoder", passes, model, digest)


@pytest.fixture(scope="module")
def export(tiny_stable_diffusion: Path, export_of: ExportOf) -> Path:
    return export_of(tiny_stable_diffusion, Component.TEXT_ENCODER)


def run(model: Path, export: Path, out: Path, passes: tuple[str, ...] = PASSES) -> dict[str, bytes]:
    out.mkdir()
    stage(model, passes).run({"export": export}, out, lambda done, words: None)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def states(folder: Path) -> np.typing.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    result: np.typing.NDArray[np.float32] = session.run(None, {"token_ids": np.arange(16)[None] % 7})[0]
    return result


def test_component_folder_and_what_the_passes_did(
    tiny_stable_diffusion: Path, export: Path, tmp_path: Path
) -> None:
    files = run(tiny_stable_diffusion, export, tmp_path / "out")
    assert sorted(files) == ["model.onnx", "model.onnx.data", "passes.json"]
    told = json.loads(files["passes.json"])
    assert told["component"] == "text_encoder"
    assert [entry["text"] for entry in told["passes"]] == list(PASSES)
    quantized = {change["where"] for change in told["passes"][2]["changes"]}
    assert "encoder.layers.0.self_attn.q_proj.weight" in quantized
    # every quantized layer tells its loss, and INT4 costs between nothing and a fifth
    assert {loss["layer"] for loss in told["losses"]} >= quantized
    assert all(0 <= loss["relative_error"] < 0.2 for loss in told["losses"])


def test_same_inputs_same_bytes(tiny_stable_diffusion: Path, export: Path, tmp_path: Path) -> None:
    first = run(tiny_stable_diffusion, export, tmp_path / "one")
    assert run(tiny_stable_diffusion, export, tmp_path / "two") == first


def test_without_passes_the_function_is_the_models(
    tiny_stable_diffusion: Path, export: Path, tmp_path: Path
) -> None:
    run(tiny_stable_diffusion, export, tmp_path / "plain", ())
    run(tiny_stable_diffusion, export, tmp_path / "canonical", ("canonicalize",))
    plain, canonical = states(tmp_path / "plain"), states(tmp_path / "canonical")
    # the same float32 sums in another order
    assert np.abs(plain - canonical).max() < 1e-5


def test_options_follow_passes_and_weights(tiny_stable_diffusion: Path) -> None:
    options = stage(tiny_stable_diffusion).options()
    assert options == stage(tiny_stable_diffusion).options()
    assert options != stage(tiny_stable_diffusion, PASSES[:1]).options()
    changed = Transform("text_encoder", PASSES, tiny_stable_diffusion, "0" * 64)
    assert options != changed.options()
    moved = Transform(
        "text_encoder", PASSES, tiny_stable_diffusion / "..", stage(tiny_stable_diffusion).weights_digest
    )
    assert options == moved.options()


def test_unknown_pass(tiny_stable_diffusion: Path) -> None:
    with pytest.raises(PassError, match="unknown pass 'quantize-int5'"):
        stage(tiny_stable_diffusion, ("quantize-int5",)).options()


def test_place_of_a_lora_does_not_show() -> None:
    noted = []
    for folder in ("/here", "/somewhere else"):
        path = Path(folder) / "style.safetensors"
        one = FuseLora(path=path, scale=0.5)
        assert str(placeless(one)) == "fuse-lora{path=style.safetensors, scale=0.5}"
        model = ir.from_proto(small_component())
        model.graph.metadata_props["latentc.fused"] = f"{path} at 0.5"
        forget_folders(model, [one])
        noted.append(dict(model.graph.metadata_props))
    assert noted == [{"latentc.fused": "style.safetensors at 0.5"}] * 2


@pytest.mark.parametrize(
    ("name", "component", "least"),
    [
        ("shapes-sd", Component.UNET, 24),  # all of attention and feed-forward but the text
        # nothing behind a GELU or beside one, nor at the edges; one scale for two readers may lose too much
        ("shapes-flux", Component.TRANSFORMER, 13),
    ],
)
def test_scales_and_rotations_fold_in_the_demo_denoisers(
    name: str, component: Component, least: int, export_of: ExportOf, tmp_path: Path, seed: int
) -> None:
    root = SHAPES / name
    bound = bind(export_of(root, component), open_model(root))
    model = Canonicalize()(bound, PassContext()).model
    feeds = inputs_of(model, {"B": 2, "T": 7, "h": 8, "w": 8, "S": 16}, seed)
    context = recorded(model, feeds, tmp_path / "records")
    smoothed = Smooth(rank=0, grid=2)(model, context)
    told = {change.where.partition(",")[0]: change.what for change in smoothed.changes}
    online = {where for where, what in told.items() if ", online: " in what}
    assert len(told) - len(online) >= least
    assert all(told[where].endswith(_ENDS) or "folded it loses" in told[where] for where in online)
    assert len(smoothed.model.graph) == len(model.graph) + len(online)
    inputs = {linear.name: linear.shape[0] for linear in find_linears(model.graph)}
    copies = {where for where, what in told.items() if "(a copy)" in what}  # the norms of adaLN
    scale_bytes = 4 * sum(inputs[where] for where in online | copies)
    assert weigh(smoothed.model).quantized_bytes == scale_bytes
    rotated = Rotate(rank=0)(smoothed.model, context)
    assert any(", folded into" in one.what for one in rotated.changes)
    seen, wanted = (run_model(one, tmp_path / "run", feeds) for one in (rotated.model, model))
    assert max(relative_error(one, other) for one, other in zip(seen, wanted, strict=True)) < 1e-5


_ENDS = ("is an input", "is a Gelu", "is a Sigmoid", "is a Concat")


def recorded(model: ir.Model, feeds: dict[str, Array], folder: Path) -> PassContext:
    """Rows of every linear from one run, some channels of which are made to stick out."""
    read = {
        linear.name: name_of(value)
        for linear in find_linears(model.graph)
        if (value := linear.nodes[0].inputs[0]) is not None
    }
    (values,) = inner_values(model, sorted(set(read.values())), [feeds])
    (folder / ROWS).mkdir(parents=True)
    for weight, name in read.items():
        rows = values[name].reshape(-1, values[name].shape[-1])
        rows = rows * np.where(np.arange(rows.shape[1]) % 29 == 3, np.float32(20), np.float32(1))
        np.save(rows_file(folder / ROWS, weight, RowKind.FIT), rows[::2][:48])
        np.save(rows_file(folder / ROWS, weight, RowKind.HELD_OUT), rows[1::2][:48])
    return PassContext(calibration=folder)
