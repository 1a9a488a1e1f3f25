from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from tests.compiler.conftest import ExportOf
from tests.compiler.small_component import small_component

from latentc.compiler.model_folder import open_model
from latentc.compiler.stages.transform import Transform, forget_folders, placeless
from latentc.errors import PassError
from latentc.passes.fuse_lora import FuseLora
from latentc.recipes.family import Component

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
