"""Room: whether what a build will take is there, asked before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.errors import ResourceError, TargetError

if TYPE_CHECKING:
    from latentc.compiler.forecast.prediction import Prediction

_GO_ON = "--force to go on all the same"
_SPARE_BYTES = 64 * 2**20
"""A disk is full before its last byte is written."""


def require_room(
    prediction: Prediction, labels: Sequence[str], target_names: Sequence[str], folders: Sequence[Path]
) -> None:
    """Refuse a build that cannot end well.

    Args:
        prediction: of the recipe.
        labels: of the steps that are still to run.
        target_names: for which it is built.
        folders: the store, and where bundles go.

    Raises:
        TargetError: a target has less memory than the bundle needs there.
        ResourceError: this machine has less memory or disk than the build needs.
    """
    for one in prediction.fits:
        if one.target in target_names and not one.fits:
            change = f"build with {one.advice}, or " if one.advice else ""
            raise TargetError(
                one.target,
                f"the bundle will need {_mib(one.memory.needed)}, the device has {_mib(one.has_bytes)}"
                f" ({_largest(one.memory.sequential, one.memory.building)})",
                f"{change}{_GO_ON}",
            )
    to_run = [stage for stage in prediction.stages if stage.label in labels]
    most = max(to_run, key=lambda stage: stage.peak_bytes, default=None)
    if most is not None and most.peak_bytes > prediction.machine.memory_bytes:
        raise ResourceError(
            most.label,
            f"will need {_mib(most.peak_bytes)} of memory, this machine has "
            f"{_mib(prediction.machine.memory_bytes)}",
            f"build on a machine with more, or {_GO_ON}",
        )
    _require_disk(prediction, sum(stage.disk_bytes for stage in to_run), folders)


def _require_disk(prediction: Prediction, store_bytes: int, folders: Sequence[Path]) -> None:
    store, out = folders
    delivered = sum(one.total for one in prediction.bundles) if store_bytes else 0
    needs = {store: store_bytes, out: delivered}
    if store.stat().st_dev == _existing(out).stat().st_dev:
        needs = {store: store_bytes + delivered}
    for folder, needed in needs.items():
        free = shutil.disk_usage(_existing(folder)).free
        if needed and needed + _SPARE_BYTES > free:
            raise ResourceError(
                str(folder),
                f"the build will write {_mib(needed)}, {_mib(free)} are free",
                f"free space, choose another folder, or {_GO_ON}",
            )


def _existing(folder: Path) -> Path:
    """``folder`` or the nearest of its parents that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _largest(drawing: int, building: int) -> str:
    return "to build an engine there" if building > drawing else "to draw a picture there"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
