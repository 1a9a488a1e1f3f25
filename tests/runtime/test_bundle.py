"""A bundle is exactly what its manifest says, or it is not opened."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.runtime.small_bundle import write_small_bundle

from latentc.errors import BundleError
from latentc.recipes.family import Component
from latentc.runtime.bundle import (
    BUILDING,
    component_named,
    engine_record,
    made_on_device,
    open_bundle,
    sha256_of_file,
    verify_bundle,
    write_manifest,
)
from latentc.runtime.manifest import FileEntry, Json, manifest_from_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_an_intact_bundle_verifies(folder: Path) -> None:
    bundle = verify_bundle(folder)
    assert sorted(bundle.manifest.files) == [
        "text_encoder/model.onnx",
        "tokenizer/tokenizer.json",
        "unet/model.onnx",
        "unet/model.onnx.data",
        "vae_decoder/model.onnx",
    ]
    assert bundle.checked_bytes("unet/model.onnx") == (folder / "unet/model.onnx").read_bytes()
    assert bundle.beside("unet/model.onnx") == ("unet/model.onnx", "unet/model.onnx.data")


def test_the_manifest_is_the_same_bytes_twice_and_names_every_file(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    manifest = manifest_from_json(before.decode())
    written = write_manifest(folder, manifest)
    assert (folder / "manifest.json").read_bytes() == before
    assert written.files["unet/model.onnx"] == FileEntry(
        sha256_of_file(folder / "unet/model.onnx"), (folder / "unet/model.onnx").stat().st_size
    )


def test_a_bundle_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert open_bundle(tmp_path / "current").folder == folder.resolve()


def _flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "unet/model.onnx.data").read_bytes())
    data[100] ^= 1
    (folder / "unet/model.onnx.data").write_bytes(bytes(data))


def _cut(folder: Path) -> None:
    os.truncate(folder / "vae_decoder/model.onnx", 10)


def _link(folder: Path) -> None:
    path = folder / "unet/model.onnx.data"
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "unet" / "pipe")


DAMAGES: tuple[tuple[Callable[[Path], object], str], ...] = (
    (_flip_a_bit, r"unet/model\.onnx\.data: has SHA-256 \w{64}, the manifest says \w{64}\nfix: copy the"),
    (_cut, r"vae_decoder/model\.onnx: has 10 bytes, the manifest says \d+\nfix: copy the bundle again"),
    (_link, r"unet/model\.onnx\.data: is a link or a special file, wanted plain files"),
    (_pipe, r"unet/pipe: is a link or a special file, wanted plain files"),
    (
        lambda folder: (folder / "unet/plugin.so").write_bytes(b"x"),
        r"unet/plugin\.so: is not in the manifest \(1 such\)\nfix: remove it",
    ),
    (
        lambda folder: (folder / "tokenizer/tokenizer.json").unlink(),
        r"tokenizer/tokenizer\.json: is missing \(1 such\)",
    ),
    (lambda folder: (folder / "manifest.json").unlink(), r"bundle: has no manifest\.json"),
    (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"), r"manifest\.json: is not UTF-8"),
    (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json: is not JSON"),
)


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_is_found_and_named(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(BundleError) as caught:
        verify_bundle(folder)
    assert re.search(message, str(caught.value)), str(caught.value)


CONTRADICTIONS: tuple[tuple[tuple[str, ...], Json, str], ...] = (
    (("format",), 2, "has format 2, this latentc reads format 1"),
    (
        ("family",),
        "stable-difusion",
        "manifest.json: family: 'stable-difusion' is unknown\nfix: did you mean",
    ),
    (("target",), "onix", "manifest.json: target: 'onix' is unknown\nfix: did you mean 'onnx'?"),
    (("runtime",), "tensorrt", "runtime is 'tensorrt', but target 'onnx' runs 'onnxruntime'"),
    (("components", "unet", "file"), "unet/other.onnx", "names 'unet/other.onnx', which files lacks"),
    (
        ("tokenizers", "tokenizer", "file"),
        "t.json",
        "tokenizers.tokenizer: names 't.json', which files lacks",
    ),
    (("components", "unet2"), {}, "is incomplete or mistyped"),
)


@pytest.mark.parametrize(("keys", "value", "message"), CONTRADICTIONS)
def test_a_manifest_that_contradicts_itself(
    folder: Path, keys: tuple[str, ...], value: Json, message: str
) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "unet//x", "unet/./x", "a\\b", ""])
def test_a_path_that_leaves_the_bundle_is_refused(folder: Path, name: str) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    data["files"][name] = {"sha256": "0" * 64, "size_bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert str(caught.value) == (
        f"manifest.json: files: '{name}' is not a plain relative path\nfix: do not use this bundle"
    )


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        open_bundle(tmp_path / "missing")


def test_only_boards_may_add_engines(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "jetson", "jetson-orin-nano-8gb")
    bundle = open_bundle(tmp_path / "jetson")
    assert "unet/model.engine" in made_on_device(bundle)
    for name in ("unet/model.engine", engine_record("unet/model.engine"), "timing.cache"):
        (tmp_path / "jetson" / name).write_bytes(b"made here")
    (tmp_path / "jetson" / BUILDING).mkdir()
    (tmp_path / "jetson" / BUILDING / "half an engine").write_bytes(b"x")
    verify_bundle(tmp_path / "jetson")
    (tmp_path / "jetson" / "vae_decoder" / "other.engine").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"vae_decoder/other\.engine: is not in the manifest"):
        verify_bundle(tmp_path / "jetson")


def test_component_names() -> None:
    assert component_named("unet") is Component.UNET
    with pytest.raises(BundleError, match="did you mean 'unet'"):
        component_named("unett")
