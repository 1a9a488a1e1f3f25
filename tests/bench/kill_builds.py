"""Kill builds with SIGKILL at random moments, start them again, and compare the bytes they end in.

python tests/bench/kill_builds.py --builds 50 --seed 1
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = """\
extends: {shipped}
name: killed
targets: [ort-mobile]
sampling: {{steps: 2}}
calibration: {{count: 1, samples: 2}}
validation: {{count: 2, clip: null, limits: {{}}}}
"""


def started(recipe: Path, out: Path, store: Path) -> subprocess.Popen[bytes]:
    """A build in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "latentc",
        "build",
        str(recipe),
        "--out",
        str(out),
        "--store",
        str(store),
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finished(recipe: Path, out: Path, store: Path) -> float:
    """Build to the end; seconds. Raises RuntimeError when the build fails."""
    began_s = time.monotonic()
    process = started(recipe, out, store)
    _, said = process.communicate()
    if process.returncode not in (0, 1):  # 1: the gate's verdict, which is not at stake here
        raise RuntimeError(said.decode())
    return time.monotonic() - began_s


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def main() -> int:
    """Print one line a build and a summary; 1 when any build ended in other bytes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--builds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    shipped = Path(__file__).parent.parent.parent / "recipes" / "shapes-sd.yaml"
    with tempfile.TemporaryDirectory(prefix="latentc-kill-") as scratch:
        place = Path(scratch)
        recipe = place / "killed.yaml"
        recipe.write_text(RECIPE.format(shipped=shipped))
        undisturbed_s = finished(recipe, place / "wanted", place / "store")
        wanted = files_of(place / "wanted" / "ort-mobile")
        say(f"undisturbed build: {undisturbed_s:.1f} s, {len(wanted)} files")
        wrong = kills = 0
        for number in range(1, arguments.builds + 1):
            store, out = place / "store-killed", place / "out-killed"
            alive_s = []
            for _ in range(chance.randint(1, 3)):  # some are killed again on the way
                process = started(recipe, out, store)
                delay_s = chance.uniform(0.2, undisturbed_s)
                try:
                    process.wait(delay_s)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    kills += 1
                    alive_s.append(delay_s)
                if process.stderr is not None:
                    process.stderr.close()
            again_s = finished(recipe, out, store)
            made = files_of(out / "ort-mobile")
            others = sorted(
                name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name)
            )
            wrong += bool(others)
            moments = ", ".join(f"{moment:.1f}" for moment in alive_s)
            say(
                f"{number:3d}: killed after {moments or 'the end'} s, then {again_s:.1f} s: "
                f"{'OTHER bytes: ' + ', '.join(others) if others else 'same bytes'}"
            )
            shutil.rmtree(store)
            shutil.rmtree(out)
        say(f"{arguments.builds} builds, {kills} kills, {wrong} ended in other bytes")
    return int(wrong > 0)


def say(line: str) -> None:
    """Write one line at once, so that a log can be watched."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
