"""Long stages on bad days: killed, without room, with damaged units. Then only what is missing is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.compiler.stopped_stage import TOGETHER, Journal, contents, made, step_of, units_of

SCRIPT = Path(__file__).parent / "stopped_stage.py"

Wanted = Callable[[str], dict[str, bytes]]

Killed = Callable[[str, Path], list[str]]


@pytest.fixture(scope="module", autouse=True)
def _small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentc.compiler.batches.MOST_TOGETHER", TOGETHER)
        yield


@pytest.fixture(scope="module")
def wanted(tiny_stable_diffusion: Path, tmp_path_factory: pytest.TempPathFactory) -> Wanted:
    """What an undisturbed run gives."""
    found: dict[str, dict[str, bytes]] = {}

    def of(kind: str) -> dict[str, bytes]:
        if kind not in found:
            store = tmp_path_factory.mktemp("undisturbed")
            found[kind] = contents(made(kind, tiny_stable_diffusion, store, Journal()).path)
            assert units_of(store) == []
        return found[kind]

    return of


@pytest.fixture(scope="module")
def killed(tiny_stable_diffusion: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Makes a folder the store of a process that was killed, and names the units that it had finished."""
    left: dict[str, Path] = {}

    def leave(kind: str, store: Path) -> list[str]:
        if kind not in left:
            left[kind] = tmp_path_factory.mktemp("killed") / "store"
            command = [sys.executable, str(SCRIPT), "kill", str(tiny_stable_diffusion), str(left[kind]), kind]
            assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
        shutil.copytree(left[kind], store, dirs_exist_ok=True)
        return units_of(store)

    return leave


def done_again(kind: str, said: list[str]) -> list[str]:
    """Of the units that were finished when the stage was stopped, those that ``said`` tells of."""
    undone = {"calibrate": "drawing prompts 1…2", "sensitivity": "drawing prompts"}[kind]
    return [words for words in said if words.startswith((undone, "gradient 1 ", "gradient 2 "))]


@pytest.mark.parametrize("kind", ["calibrate", "sensitivity"])
def test_after_a_kill_only_what_is_missing_is_done(
    tiny_stable_diffusion: Path, tmp_path: Path, wanted: Wanted, killed: Killed, kind: str
) -> None:
    kept = killed(kind, tmp_path)
    share = len(kept) / int(kept[0].rpartition("-")[2])
    assert 0 < share < 1
    journal = Journal()
    artifact = made(kind, tiny_stable_diffusion, tmp_path, journal)
    assert contents(artifact.path) == wanted(kind)
    assert journal.whys == [f"not built yet; {share:.0%} of it is done"]
    assert done_again(kind, journal.said) == []
    assert journal.said[0].endswith("before")
    assert journal.fractions[0] == pytest.approx(share, rel=0.1)
    assert journal.fractions == sorted(journal.fractions)
    assert list((tmp_path / "partial").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "damage"), [("calibrate", "truncated"), ("calibrate", "flipped"), ("sensitivity", "truncated")]
)
def test_a_damaged_unit_is_done_again(
    tiny_stable_diffusion: Path, tmp_path: Path, wanted: Wanted, killed: Killed, kind: str, damage: str
) -> None:
    kept = killed(kind, tmp_path)
    (unit,) = (tmp_path / "partial").glob(f"*/units/{kept[0]}")
    data = unit.read_bytes()
    unit.write_bytes(data[: len(data) // 2] if damage == "truncated" else data[:-9] + b"~" + data[-8:])
    journal = Journal()
    assert contents(made(kind, tiny_stable_diffusion, tmp_path, journal).path) == wanted(kind)
    assert done_again(kind, journal.said)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "header", "odd"])
def test_damaged_rows_are_drawn_again(
    tiny_stable_diffusion: Path, tmp_path: Path, wanted: Wanted, killed: Killed, damage: str
) -> None:
    """The rows of a batch lie in the files of all linears: none of them is believed without its hash."""
    killed("calibrate", tmp_path)
    rows = sorted((tmp_path / "partial").glob("*/work/content/unet/rows/*.npy"))
    file = rows[len(rows) // 2]
    data = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(data[:150])
    elif damage == "flipped":
        file.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    elif damage == "gone":
        file.unlink()
    elif damage == "header":
        file.write_bytes(bytes(64) + data[64:])
    else:
        (file.parent / "more").write_bytes(b"x")
        (file.parent.parent / "0000.npz").write_bytes(b"x")
    journal = Journal()
    assert contents(made("calibrate", tiny_stable_diffusion, tmp_path, journal).path) == wanted("calibrate")
    assert bool(done_again("calibrate", journal.said)) == (damage in ("truncated", "flipped", "gone"))


def test_a_kill_while_publishing_costs_no_unit(
    tiny_stable_diffusion: Path, tmp_path: Path, wanted: Wanted, killed: Killed
) -> None:
    """Published files are read-only, also those that a kill left where they were."""
    killed("calibrate", tmp_path)
    for path in (tmp_path / "partial").glob("*/work/content/**/*.npy"):
        path.chmod(0o444)
    (left_over,) = (path / ".record.json.1.part" for path in (tmp_path / "partial").glob("*/work"))
    left_over.write_text("{")
    journal = Journal()
    artifact = made("calibrate", tiny_stable_diffusion, tmp_path, journal)
    assert contents(artifact.path) == wanted("calibrate")
    assert sorted(path.name for path in artifact.path.parent.iterdir()) == ["content", "record.json"]
    assert done_again("calibrate", journal.said) == []


def test_a_disk_that_fills_up_costs_no_finished_unit(
    tiny_stable_diffusion: Path, tmp_path: Path, wanted: Wanted
) -> None:
    on_small_disk = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64m none "$0" && exec "$@"']
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*on_small_disk, str(tmp_path), "true"], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("this machine lets no test mount a small disk of its own")
    command = [sys.executable, str(SCRIPT), "fill", str(tiny_stable_diffusion), str(tmp_path)]
    done = subprocess.run(
        [*on_small_disk, str(tmp_path), *command], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for kind, told in json.loads(done.stdout).items():
        assert told["message"] == (
            f"{kind}: the disk is full (0 MiB free)\n"
            "fix: free space, then run the same command: it goes on with what is finished"
        )
        assert told["kept"]
        assert told["why"].endswith("% of it is done")
        assert done_again(kind, told["said"]) == []
        assert told["left"] == []
        assert {name: bytes.fromhex(data) for name, data in told["files"].items()} == wanted(kind)


def test_unfinished_work_does_not_pile_up(
    tiny_stable_diffusion: Path, tmp_path: Path, killed: Killed
) -> None:
    from latentc.compiler.store import PARTIAL_KEPT_S, Store

    killed("sensitivity", tmp_path)
    store = Store(tmp_path)
    partial = store.partial(step_of("sensitivity", tiny_stable_diffusion).digest)
    assert partial.units.is_dir()
    long_ago_s = partial.units.stat().st_mtime - PARTIAL_KEPT_S - 60
    for path in (partial.folder, *partial.folder.iterdir()):
        os.utime(path, (long_ago_s, long_ago_s))
    Store(tmp_path)
    assert not partial.folder.exists()
