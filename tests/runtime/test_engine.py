"""Engines: really built with TensorRT for RTX, which needs no GPU; refusals, crashes and records."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper
from tests.runtime.small_bundle import TOKENS, WIDTH, save_model, write_small_bundle

from latentc.errors import BundleError, TargetError, ToolMissing, UsageError
from latentc.recipes.family import Component
from latentc.runtime.bundle import (
    BUILDING,
    component_named,
    engine_record,
    made_on_device,
    open_bundle,
    sha256_of_file,
    verify_bundle,
)
from latentc.runtime.engine import (
    Builder,
    EngineOptions,
    EngineRequest,
    build_components,
    build_engines,
    engine_from_onnx,
    place_engine,
    profile_of,
)
from latentc.runtime.engine_record import EngineRecord, record_from_json
from latentc.runtime.tensorrt_session import engine_bytes

JETSON = "jetson-orin-nano-8gb"


def _request(folder: Path, onnx_file: Path, **changes: object) -> EngineRequest:
    request = EngineRequest(
        package="tensorrt_rtx",
        onnx=str(onnx_file),
        engine=str(folder / "model.engine"),
        report=str(folder / "report.json"),
        profile={},
        compute_capability="8.6",
        workspace_mib=64,
    )
    return replace(request, **changes)  # type: ignore[arg-type] # fields by name


def test_profiles_follow_the_picture(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle", JETSON)
    bundle = open_bundle(tmp_path / "bundle")
    fixed = profile_of(bundle, Component.UNET, EngineOptions())
    assert fixed["latent"] == ((1, 4, 8, 6), (2, 4, 8, 6), (2, 4, 8, 6))
    ranged = profile_of(bundle, Component.UNET, EngineOptions((16, 16), (64, 48)))
    assert ranged["latent"] == ((1, 4, 4, 4), (2, 4, 8, 6), (2, 4, 16, 12))
    assert ranged["text_states"] == ((1, TOKENS, WIDTH), (2, TOKENS, WIDTH), (2, TOKENS, WIDTH))
    assert profile_of(bundle, Component.TEXT_ENCODER, EngineOptions())["token_ids"][1] == (1, TOKENS)
    with pytest.raises(UsageError, match="64×64 … 32×24 leaves out the bundle's own 32×24"):
        profile_of(bundle, Component.UNET, EngineOptions((64, 64)))


@pytest.mark.parametrize("component", [Component.UNET, Component.VAE_DECODER, Component.TEXT_ENCODER])
def test_an_engine_is_built_without_a_gpu(tmp_path: Path, component: Component) -> None:
    """The very ONNX of a Jetson bundle, dynamic sizes and external weights included."""
    pytest.importorskip("tensorrt_rtx")
    write_small_bundle(tmp_path / "bundle", JETSON)
    bundle = open_bundle(tmp_path / "bundle")
    entry = bundle.manifest.components[str(component)]
    profile = profile_of(bundle, component, EngineOptions((16, 16), (64, 48)))
    request = _request(tmp_path, bundle.folder / entry.onnx, profile=profile)
    version = engine_from_onnx(str(component), request)
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", version)
    assert Path(request.engine).stat().st_size > 1000

    record = EngineRecord(
        sha256_of_file(Path(request.engine)),
        bundle.manifest.files[entry.onnx].sha256,
        "tensorrt_rtx",
        version,
        "8.6",
        profile,
    )
    with pytest.raises(TargetError, match="its engine is not built yet"):
        engine_bytes(bundle, component)
    place_engine(bundle, component, Path(request.engine), record)
    verify_bundle(tmp_path / "bundle")
    assert engine_bytes(bundle, component) == (bundle.folder / entry.file).read_bytes()

    (bundle.folder / entry.file).write_bytes(b"another program")
    with pytest.raises(BundleError, match=r"model\.engine: its bytes has SHA-256"):
        engine_bytes(bundle, component)


def test_all_engines_of_a_board_appear_with_records(tmp_path: Path) -> None:
    """What a board does, with the one library that does it without a GPU."""
    library = pytest.importorskip("tensorrt_rtx")
    write_small_bundle(tmp_path / "bundle", JETSON)
    bundle = open_bundle(tmp_path / "bundle")
    (bundle.folder / BUILDING).mkdir()
    (bundle.folder / BUILDING / "half").write_bytes(b"of an interrupted build")
    builder = Builder("tensorrt_rtx", "8.6", without_gpu=True)
    (bundle.folder / "unet/model.engine").write_bytes(b"of an earlier build")
    words = list(build_components(bundle, EngineOptions(), builder))
    assert words == [f"building {name}" for name in bundle.manifest.components]
    seen = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    assert seen - set(bundle.manifest.files) - {"manifest.json"} == made_on_device(bundle)
    verify_bundle(tmp_path / "bundle")
    for name, entry in bundle.manifest.components.items():
        assert engine_bytes(bundle, component_named(name))
        text = (bundle.folder / engine_record(entry.file)).read_text()
        record = record_from_json("engine.json", text)
        assert (record.library, record.version, record.compute_capability) == (
            "tensorrt_rtx",
            library.__version__,
            "8.6",
        )


def test_a_refused_component_leaves_no_half_engine(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    write_small_bundle(tmp_path / "bundle", JETSON)
    bundle = open_bundle(tmp_path / "bundle")
    with pytest.raises(TargetError, match="text_encoder: tensorrt_rtx is not done after 0 s"):
        list(build_components(bundle, EngineOptions(timeout_s=0.0), Builder("tensorrt_rtx", "8.6", True)))
    assert not (bundle.folder / BUILDING).exists()
    assert not list(bundle.folder.rglob("*.engine"))


def test_an_engine_of_another_graph_is_not_run(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle", JETSON)
    bundle = open_bundle(tmp_path / "bundle")
    engine = tmp_path / "engine"
    engine.write_bytes(b"x")
    place_engine(
        bundle,
        Component.UNET,
        engine,
        EngineRecord(sha256_of_file(engine), "0" * 64, "tensorrt", "10.3.0", "8.7", {}),
    )
    with pytest.raises(BundleError, match="the graph it was built from has SHA-256 0000"):
        engine_bytes(bundle, Component.UNET)


def test_a_graph_that_is_refused_names_the_node(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    graph = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"], name="the determinant")],
        "refused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2,))],
    )
    path = tmp_path / "model.onnx"
    save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10),
        path,
        external=False,
    )
    with pytest.raises(TargetError) as caught:
        engine_from_onnx("unet", _request(tmp_path, path))
    assert str(caught.value).startswith("unet: tensorrt_rtx refuses it: node 'the determinant' (Det): ")
    assert not (tmp_path / "model.engine").exists()


def test_a_dynamic_input_without_sizes_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    write_small_bundle(tmp_path / "bundle", JETSON)
    with pytest.raises(TargetError, match="input 'latent' is dynamic and has no sizes"):
        engine_from_onnx("unet", _request(tmp_path, tmp_path / "bundle/unet/model.onnx"))


def test_a_crash_of_the_builder_is_an_error_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native code that aborts takes its whole process with it; here a library that does just that."""
    (tmp_path / "tensorrt.py").write_text("import os, sys\nsys.stderr.write('CHECK failed\\n')\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    write_small_bundle(tmp_path / "bundle", JETSON)
    request = _request(tmp_path, tmp_path / "bundle/unet/model.onnx", package="tensorrt")
    with pytest.raises(TargetError) as caught:
        engine_from_onnx("transformer", request)
    assert str(caught.value) == (
        "transformer: tensorrt crashed with SIGABRT; its last words: CHECK failed\n"
        "fix: see dmesg: if memory ran out, add swap or build on a larger board of the same family"
    )


def test_a_builder_that_does_not_end(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle", JETSON)
    with pytest.raises(TargetError, match=r"tensorrt_rtx is not done after 0\.01 s"):
        engine_from_onnx("unet", _request(tmp_path, tmp_path / "bundle/unet/model.onnx"), timeout_s=0.01)


def test_only_boards_build(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle", "onnx")
    with pytest.raises(TargetError, match="target: 'onnx' builds no engine on the device"):
        list(build_engines(tmp_path / "bundle"))


def test_without_a_board_nothing_is_left_behind(tmp_path: Path) -> None:
    manifest = write_small_bundle(tmp_path / "bundle", JETSON)
    with pytest.raises((TargetError, ToolMissing)):
        list(build_engines(tmp_path / "bundle"))
    assert verify_bundle(tmp_path / "bundle").manifest == manifest
    assert json.loads((tmp_path / "bundle/manifest.json").read_text())["files"]
