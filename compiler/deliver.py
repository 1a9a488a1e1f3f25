"""Deliver: copy a finished bundle out of the store, whole or not at all, and over nothing not ours."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from latentc.errors import UsageError
from latentc.runtime.bundle import MANIFEST, sha256_of_file
from latentc.runtime.whole_file import sync

REPORT = "report"
_ELSEWHERE = "choose another --out, or move what is there away"
# of linux/fs.h and fcntl.h
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def require_place(out: Path, target: str) -> None:
    """Raise UsageError unless ``out/target`` and ``out/report`` are free or hold what latentc put there."""
    for name, require in ((target, _require_ours), (REPORT, _require_report)):
        final = out / name
        if final.is_symlink() or final.exists():
            require(final)


def install_report(artifacts: Mapping[str, Path], out: Path) -> Path:
    """Make ``out/report`` the reports in ``artifacts``, by target.

    One target's report lies there itself; those of several lie in a folder each, under an overview.

    Raises:
        UsageError: ``out/report`` holds something that latentc did not write; it is left untouched.
        ToolMissing: jinja2 is not installed.
    """
    from latentc.validation.overview import write_overview
    from latentc.validation.report_json import read_report
    from latentc.validation.write_report import JSON

    final = out / REPORT
    is_there = final.is_symlink() or final.exists()
    if is_there:
        _require_report(final)
    _sweep(out, REPORT)
    part = out / f".latentc-{REPORT}-{os.getpid()}"
    try:
        if len(artifacts) == 1:
            shutil.copytree(next(iter(artifacts.values())), part, copy_function=shutil.copyfile)
        else:
            for target, artifact in artifacts.items():
                shutil.copytree(artifact, part / target, copy_function=shutil.copyfile)
            write_overview({name: read_report(path / JSON) for name, path in artifacts.items()}, part)
        _put(part, final, is_there)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final


def install_bundle(artifact: Path, out: Path, target: str) -> Path:
    """Make ``out/target`` the bundle in ``artifact``.

    An older bundle of ours is replaced in one rename; the same bundle is left as it is, with the engines
    that a board may have built in it.

    Returns:
        The bundle's folder.

    Raises:
        UsageError: ``out/target`` holds something that is no bundle of latentc; it is left untouched.
    """
    final = out / target
    is_there = final.is_symlink() or final.exists()
    if is_there:
        _require_ours(final)
        if _same_manifest(artifact, final):
            return final
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            "--out", f"'{out}' is a file, a folder was expected", "choose another folder"
        ) from error
    _sweep(out, target)
    part = out / f".latentc-{target}-{os.getpid()}"
    try:
        shutil.copytree(artifact, part, copy_function=shutil.copyfile)
        _sync_tree(part)
        _put(part, final, is_there)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync(out)
    return final


def _put(part: Path, final: Path, is_there: bool) -> None:
    """Give ``part`` the name ``final``; what had that name has the other one afterwards, or is gone."""
    if not is_there:
        part.rename(final)
    elif not _exchange(part, final):
        # a file system without exchange: a crash between these two lines leaves no bundle, never half of one
        shutil.rmtree(final)
        part.rename(final)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False  # no Linux, or a C library before 2018
    done: int = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sweep(out: Path, target: str) -> None:
    """Remove what a killed process left beside the bundle."""
    for path in out.glob(f".latentc-{target}-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _require_report(final: Path) -> None:
    if final.is_dir() and not final.is_symlink():
        if not any(final.iterdir()):
            return
        try:
            data = json.loads((final / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            data = None
        if isinstance(data, dict) and {"format", "passed", "findings"} <= data.keys():
            return
    raise UsageError("--out", f"'{final}' holds something that is no latentc report", _ELSEWHERE)


def _require_ours(final: Path) -> None:
    fix = _ELSEWHERE
    if final.is_symlink() or not final.is_dir():
        raise UsageError("--out", f"'{final}' is a link or a file, a folder was expected", fix)
    if not any(final.iterdir()):
        return
    try:
        data = json.loads((final / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError("--out", f"'{final}' holds something that is no latentc bundle", fix) from error
    if not isinstance(data, dict) or not {"format", "target", "components", "files"} <= data.keys():
        raise UsageError("--out", f"'{final}' holds something that is no latentc bundle", fix)


def _same_manifest(artifact: Path, final: Path) -> bool:
    """Whether ``final`` is the same bundle, and every file of the manifest is as the manifest says."""
    manifest = (artifact / MANIFEST).read_bytes()
    if not (final / MANIFEST).is_file() or (final / MANIFEST).read_bytes() != manifest:
        return False
    files: dict[str, dict[str, object]] = json.loads(manifest)["files"]
    return all(
        (final / name).is_file() and sha256_of_file(final / name) == entry["sha256"]
        for name, entry in files.items()
    )


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            sync(Path(root) / name)
        sync(Path(root))
