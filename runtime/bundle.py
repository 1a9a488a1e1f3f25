"""A bundle: a folder whose manifest lists every file with its size and SHA-256. Opened, checked, sealed here.

Nothing is read before it is checked: opening compares the list of files, names and sizes with the manifest;
the bytes of a file are hashed before a session or tokenizer sees them. What ``latentc engine build`` makes on
a board lies beside the manifest's files under fixed names and is checked against its own ``engine.json``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from latentc.errors import BundleError, nearest
from latentc.recipes.families.catalogue import FAMILIES
from latentc.recipes.family import Component, Family
from latentc.recipes.target import TARGETS, Target
from latentc.runtime.manifest import FileEntry, Manifest, manifest_from_json, manifest_to_json
from latentc.runtime.whole_file import whole_file

MANIFEST = "manifest.json"
ENGINE_RECORD = "engine.json"
TIMING_CACHE = "timing.cache"
LIMITS = "limits.json"
"""The gate's limits: the one file that whoever owns the gate may edit, so the manifest does not list it."""
BUILDING = ".building"
"""Where engines are built before they appear; nothing reads it, and a build starts by clearing it."""

_COPY_AGAIN = "copy the bundle again, or build it again"
_LARGEST_MANIFEST_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its files are those of the manifest, with the right sizes and no links.

    Args:
        folder: absolute, without links.
        manifest: what it holds.
        family: the manifest's family.
        target: the manifest's target.
    """

    folder: Path
    manifest: Manifest
    family: Family
    target: Target

    def checked(self, name: str) -> Path:
        """The path of file ``name`` after its bytes were hashed; raises BundleError on a mismatch."""
        entry = self._entry(name)
        path = self.folder / name
        _compare(name, sha256_of_file(path), entry.sha256)
        return path

    def checked_bytes(self, name: str) -> bytes:
        """The bytes of file ``name``, hashed from the very bytes returned; raises BundleError."""
        entry = self._entry(name)
        data = (self.folder / name).read_bytes()
        _compare(name, hashlib.sha256(data).hexdigest(), entry.sha256)
        return data

    def beside(self, name: str) -> tuple[str, ...]:
        """The names of all files in the folder of file ``name``, itself included, sorted."""
        parent = PurePosixPath(name).parent
        return tuple(sorted(other for other in self.manifest.files if PurePosixPath(other).parent == parent))

    def _entry(self, name: str) -> FileEntry:
        if name not in self.manifest.files:
            raise BundleError(MANIFEST, f"does not list '{name}'", _COPY_AGAIN)
        return self.manifest.files[name]


def open_bundle(folder: Path) -> Bundle:
    """Open the bundle in ``folder``; contents are hashed later, when they are read.

    Raises:
        BundleError: no manifest, one that cannot be read or contradicts itself, or files that are not
            exactly those of the manifest in name, kind and size.
    """
    root = folder.resolve()
    manifest = _read_manifest(root)
    bundle = Bundle(root, manifest, _family(manifest.family), _target(manifest.target))
    _check_references(bundle)
    _check_files(bundle)
    return bundle


def verify_bundle(folder: Path) -> Bundle:
    """Open the bundle in ``folder`` and hash every file of the manifest; raises BundleError."""
    bundle = open_bundle(folder)
    for name in sorted(bundle.manifest.files):
        bundle.checked(name)
    return bundle


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Fill ``files`` from what lies in ``folder`` and write manifest.json last, whole or not at all.

    Returns:
        The manifest as written.

    Raises:
        BundleError: ``folder`` holds a link or something that is neither file nor folder.
    """
    files = {
        name: FileEntry(sha256_of_file(folder / name), (folder / name).stat().st_size)
        for name in sorted(_names(folder))
        if name not in (MANIFEST, LIMITS)
    }
    written = replace(manifest, files=files)
    with whole_file(folder / MANIFEST) as file:
        file.write_text(manifest_to_json(written), encoding="utf-8", newline="\n")
    return written


def sha256_of_file(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal, read a piece at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(str(root), "is not a folder", "name the folder that holds manifest.json")
    if path.is_symlink() or not path.is_file():
        raise BundleError(str(root), "has no manifest.json", "name the folder that holds manifest.json")
    size_bytes = path.stat().st_size
    if size_bytes > _LARGEST_MANIFEST_BYTES:
        raise BundleError(
            MANIFEST, f"has {size_bytes} bytes, at most {_LARGEST_MANIFEST_BYTES} are read", _COPY_AGAIN
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(MANIFEST, f"is not UTF-8: {error}", _COPY_AGAIN) from error
    return manifest_from_json(text)


def _check_references(bundle: Bundle) -> None:
    """Raise BundleError when the manifest names parts that its family or its file list does not have."""
    manifest = bundle.manifest
    if manifest.runtime != str(bundle.target.runtime):
        raise BundleError(
            MANIFEST,
            f"runtime is '{manifest.runtime}', but target '{manifest.target}' runs '{bundle.target.runtime}'",
            _COPY_AGAIN,
        )
    offered = [str(spec.component) for spec in bundle.family.components]
    for name, component in manifest.components.items():
        if name not in offered:
            raise BundleError(f"{MANIFEST}: components", f"'{name}' is no component", nearest(name, offered))
        for file in {component.file, component.onnx} - {"", *made_on_device(bundle)}:
            if file not in manifest.files:
                raise BundleError(
                    f"{MANIFEST}: components.{name}", f"names '{file}', which files lacks", _COPY_AGAIN
                )
    for name, tokenizer in manifest.tokenizers.items():
        if tokenizer.file not in manifest.files:
            raise BundleError(
                f"{MANIFEST}: tokenizers.{name}", f"names '{tokenizer.file}', which files lacks", _COPY_AGAIN
            )
    for name in manifest.files:
        if not _stays_inside(name):
            raise BundleError(
                f"{MANIFEST}: files", f"'{name}' is not a plain relative path", "do not use this bundle"
            )


def made_on_device(bundle: Bundle) -> frozenset[str]:
    """Names of the files that ``latentc engine build`` may add; empty when the target builds nothing."""
    if not bundle.target.engine_on_device:
        return frozenset()
    names = {TIMING_CACHE}
    for component in bundle.manifest.components.values():
        names |= {component.file, engine_record(component.file)}
    return frozenset(names)


def engine_record(engine: str) -> str:
    """The name of the record beside the engine file ``engine``."""
    return (PurePosixPath(engine).parent / ENGINE_RECORD).as_posix()


def _check_files(bundle: Bundle) -> None:
    """Raise BundleError unless the folder holds the manifest's files and nothing else."""
    wanted = bundle.manifest.files
    seen = {name for name in _names(bundle.folder) if name not in (MANIFEST, LIMITS)}
    extra = sorted(seen - set(wanted) - made_on_device(bundle))
    if extra:
        raise BundleError(
            extra[0], f"is not in the manifest ({len(extra)} such)", "remove it, or copy the bundle again"
        )
    missing = sorted(set(wanted) - seen)
    if missing:
        raise BundleError(missing[0], f"is missing ({len(missing)} such)", _COPY_AGAIN)
    for name, entry in sorted(wanted.items()):
        size_bytes = (bundle.folder / name).stat().st_size
        if size_bytes != entry.size_bytes:
            raise BundleError(
                name, f"has {size_bytes} bytes, the manifest says {entry.size_bytes}", _COPY_AGAIN
            )


def _names(root: Path) -> Iterator[str]:
    """Relative names, with ``/``, of all files under ``root`` but the engine builder's own folder."""
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                name = path.relative_to(root).as_posix()
                if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                    raise BundleError(
                        name, "is a link or a special file, wanted plain files", "copy the bundle again"
                    )
                if entry.is_file():
                    yield name
                elif name != BUILDING:
                    folders.append(path)


def _stays_inside(name: str) -> bool:
    parts = name.split("/")
    return "\\" not in name and "\0" not in name and all(part not in ("", ".", "..") for part in parts)


def _compare(name: str, seen: str, wanted: str) -> None:
    if seen != wanted:
        raise BundleError(name, f"has SHA-256 {seen}, the manifest says {wanted}", _COPY_AGAIN)


def _family(name: str) -> Family:
    for family in FAMILIES:
        if family.name == name:
            return family
    raise BundleError(
        f"{MANIFEST}: family", f"'{name}' is unknown", nearest(name, [family.name for family in FAMILIES])
    )


def _target(name: str) -> Target:
    for target in TARGETS:
        if target.name == name:
            return target
    raise BundleError(
        f"{MANIFEST}: target", f"'{name}' is unknown", nearest(name, [target.name for target in TARGETS])
    )


def component_named(name: str) -> Component:
    """The component called ``name``; raises BundleError naming the nearest one."""
    try:
        return Component(name)
    except ValueError as error:
        raise BundleError(
            MANIFEST, f"there is no component '{name}'", nearest(name, [str(c) for c in Component])
        ) from error
