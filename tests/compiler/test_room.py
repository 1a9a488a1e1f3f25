"""Room: what does not fit is refused, with what is wanted and what there is."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.compiler import foretold

from latentc.compiler.forecast.prediction import Prediction, predict
from latentc.compiler.room import require_room
from latentc.errors import ResourceError, TargetError

LABELS = ("reference", "validate/ort-mobile")
TARGETS = ("ort-mobile",)


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    return predict(foretold.recipe(), foretold.model(), TARGETS, LABELS, foretold.store(), measured=False)


def test_there_is_room_for_a_tiny_model(prediction: Prediction, tmp_path: Path) -> None:
    require_room(prediction, LABELS, TARGETS, (tmp_path, tmp_path / "not" / "there"))


def test_a_device_that_is_too_small(prediction: Prediction, tmp_path: Path) -> None:
    fits = tuple(
        replace(one, has_bytes=2**20, advice="a smaller picture") if one.target in TARGETS else one
        for one in prediction.fits
    )
    with pytest.raises(TargetError) as refused:
        require_room(replace(prediction, fits=fits), LABELS, TARGETS, (tmp_path, tmp_path))
    needed = prediction.fits[0].memory.needed / 2**20
    assert str(refused.value) == (
        f"ort-mobile: the bundle will need {needed:.0f} MiB, the device has 1 MiB (to draw a picture there)\n"
        "fix: build with a smaller picture, or --force to go on all the same"
    )
    require_room(replace(prediction, fits=fits), LABELS, (), (tmp_path, tmp_path))


def test_a_machine_with_too_little_memory(prediction: Prediction, tmp_path: Path) -> None:
    small = replace(prediction, machine=replace(prediction.machine, memory_bytes=2**20))
    with pytest.raises(ResourceError, match="MiB of memory, this machine has 1 MiB"):
        require_room(small, LABELS, TARGETS, (tmp_path, tmp_path))
    require_room(small, (), TARGETS, (tmp_path, tmp_path))


def test_a_disk_that_is_too_small(
    prediction: Prediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 2**20

    monkeypatch.setattr("latentc.compiler.room.shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(ResourceError, match=r"the build will write [0-9]+ MiB, 1 MiB are free"):
        require_room(prediction, LABELS, TARGETS, (tmp_path, tmp_path / "out"))
