from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.compiler.small_component import TOKENS, save_component, small_component, small_inputs

from latentc.compiler.model_folder import open_model
from latentc.compiler.stages.lower import Lower
from latentc.compiler.stages.pack import Pack, latent_entry, limit_of
from latentc.errors import RecipeError, TargetError
from latentc.recipes.target import target_named
from latentc.runtime.bundle import verify_bundle
from latentc.runtime.manifest import LatentEntry, SchedulerEntry, TokenizerEntry
from latentc.runtime.selftest import run_selftest

SIZES = ((("B", 1), ("T", TOKENS), ("h", 8), ("w", 8)),)


def quiet(done: float, words: str) -> None:
    assert 0 <= done <= 1


@pytest.fixture(scope="module")
def transformed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_component(small_component(), tmp_path_factory.mktemp("transform"))
    (folder / "passes.json").write_text('{"format": 1}\n')
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, transformed: Path) -> Path:
    """A reference folder with the golden tensors of the unet and nothing that the pack does not read."""
    folder = tmp_path_factory.mktemp("reference")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(transformed / "model.onnx"), options)
    inputs = small_inputs(3)
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    arrays["output.prediction"] = session.run(None, inputs)[0]
    (folder / "components").mkdir()
    np.savez(folder / "components" / "unet.npz", **arrays)  # type: ignore[arg-type] # numpy's own stub
    (folder / "reference.json").write_text(
        json.dumps(
            {
                "format": 1,
                "family": "stable-diffusion",
                "prompts": ["a red circle"],
                "seeds": [0],
                "negative_prompt": "",
                "steps": 3,
                "guidance": 2.0,
                "height": 64,
                "width": 64,
                "trajectory_prompts": 1,
                "toolchain": {},
            }
        )
    )
    return folder


def pack_of(model: Path, target: str) -> Pack:
    return Pack(
        target_name=target,
        recipe_json='{"name": "small"}',
        recipe_name="small",
        scheduler="euler",
        steps=20,
        guidance=4.0,
        height=64,
        width=64,
        components=("unet",),
        model_root=model,
        model_digest=open_model(model, read_values=False).digest,
        simulated=("INT4 × INT4 attention",),
    )


def packed(target: str, transformed: Path, reference: Path, model: Path, folder: Path) -> Path:
    lowered, out = folder / "lowered", folder / "bundle"
    lowered.mkdir(parents=True)
    out.mkdir()
    sizes = SIZES if target_named(target).compute_capabilities else ()
    Lower(target, "unet", sizes).run({"transform": transformed}, lowered, quiet)
    inputs: Mapping[str, Path] = {"unet": lowered, "transform/unet": transformed, "reference": reference}
    pack_of(model, target).run(inputs, out, quiet)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_mobile_bundle(
    tiny_stable_diffusion: Path, transformed: Path, reference: Path, tmp_path: Path
) -> None:
    out = packed("ort-mobile", transformed, reference, tiny_stable_diffusion, tmp_path)
    bundle = verify_bundle(out)
    manifest = bundle.manifest
    assert manifest.components["unet"].file == "unet/model.ort"
    assert manifest.tokenizers == {"tokenizer": TokenizerEntry("tokenizer/tokenizer.json", TOKENS + 4, 513)}
    assert manifest.scheduler.name == "EulerDiscreteScheduler"
    assert manifest.latent == LatentEntry(4, 4, 0.18215, 0.0)
    assert manifest.simulated == ("INT4 × INT4 attention",)
    assert manifest.recipe == {"name": "small"}
    assert set(manifest.toolchain) >= {"torch", "onnxruntime", "nncf"}
    assert sorted(files(out)) == [
        "manifest.json",
        "reference/components/unet.npz",
        "reference/passes/unet.json",
        "reference/reference.json",
        "reference/selftest.json",
        "reference/unet.npz",
        "required_operators_and_types.config",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "unet/model.ort",
    ]
    scheduler = json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    assert SchedulerEntry(scheduler.pop("_class_name"), scheduler) == manifest.scheduler
    # the self-test passes where it was measured, and its limit is no formality
    (finding,) = run_selftest(bundle, threads=1)
    assert finding.passed
    assert 0 < finding.relative_error < finding.limit <= 0.05


def test_packing_twice_gives_the_same_bytes(
    tiny_stable_diffusion: Path, transformed: Path, reference: Path, tmp_path: Path
) -> None:
    one = packed("ort-mobile", transformed, reference, tiny_stable_diffusion, tmp_path / "one")
    two = packed(
        "ort-mobile", transformed, reference, tiny_stable_diffusion, tmp_path / "some" / "other" / "two"
    )
    assert files(one) == files(two)


def test_jetson_bundle_waits_for_its_engine(
    tiny_stable_diffusion: Path, transformed: Path, reference: Path, tmp_path: Path
) -> None:
    out = packed("jetson-orin-nano-8gb", transformed, reference, tiny_stable_diffusion, tmp_path)
    bundle = verify_bundle(out)
    assert bundle.manifest.components["unet"].file == "unet/model.engine"
    assert not (out / "unet" / "model.engine").exists()
    proof = json.loads((out / "proof.json").read_text())
    assert proof["unet"].startswith("parsed and built by TensorRT for RTX")
    (finding,) = run_selftest(bundle, threads=1, stand_in=True)
    assert finding.passed


def test_component_that_gives_nan(
    tiny_stable_diffusion: Path, transformed: Path, reference: Path, tmp_path: Path
) -> None:
    proto = small_component()
    for tensor in proto.graph.initializer:
        if tensor.name == "head.weight":
            tensor.raw_data = np.full(64 * 16, math.nan, np.float32).tobytes()
    broken = save_component(proto, tmp_path / "transform")
    (broken / "passes.json").write_text("{}")
    with pytest.raises(TargetError) as caught:
        packed("onnx", broken, reference, tiny_stable_diffusion, tmp_path / "out")
    assert str(caught.value) == (
        "onnx: unet: output 'prediction' holds NaN or infinity on a golden input\n"
        "fix: keep more of this component in float32, or quantize less of it"
    )


def test_scheduler_that_does_not_fit(
    tiny_stable_diffusion: Path, transformed: Path, reference: Path, tmp_path: Path
) -> None:
    Lower("onnx", "unet").run({"transform": transformed}, tmp_path, quiet)
    stage = replace(pack_of(tiny_stable_diffusion, "onnx"), scheduler="flow-match-euler")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(
        RecipeError, match=r"sampling\.scheduler: is 'flow-match-euler', but the model was trained"
    ):
        stage.run({"unet": tmp_path, "transform/unet": transformed, "reference": reference}, out, quiet)


def test_options_hold_everything_but_the_place(tiny_stable_diffusion: Path) -> None:
    stage = pack_of(tiny_stable_diffusion, "rtx")
    assert stage.options() == replace(stage, model_root=Path("elsewhere")).options()
    for change in (
        replace(stage, steps=4),
        replace(stage, guidance=1.0),
        replace(stage, width=128),
        replace(stage, scheduler="ddim"),
        replace(stage, model_digest="0" * 64),
        replace(stage, simulated=()),
        replace(stage, recipe_json="{}"),
        replace(stage, target_name="onnx"),
    ):
        assert change.options() != stage.options()
    assert "tensorrt-rtx-cu13" in stage.options()["toolchain"]  # type: ignore[operator] # a mapping


def test_latent_of_flux(tiny_flux: Path) -> None:
    entry = latent_entry(open_model(tiny_flux, read_values=False))
    config = json.loads((tiny_flux / "vae" / "config.json").read_text())
    assert entry.scaling_factor == config["scaling_factor"]
    assert entry.shift_factor == (config["shift_factor"] or 0.0)


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (0.0, 0.002),
        (0.001, 0.002),
        (0.0014, 0.005),
        (0.01, 0.02),
        (0.033, 0.05),
        (0.034, 0.1),
        (0.5, 1.0),
        (3.0, 5.0),
    ],
)
def test_limit_of_a_measured_error(error: float, limit: float) -> None:
    assert limit_of(error) == limit
