"""What compiling a large denoiser takes, against its floor, and whether kills show in the bytes.

    python -m tests.bench.scale.run --model flux --home .latentc/bench-scale --memory 2048 --kills 5

Makes a pipeline with random weights of the model's published size, once. Then: a build that nothing disturbs,
watched; the floor, each phase measured alone; and a build that is killed again and again, each time when an
even share of its layers is recorded.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.scale.floor import floor_seconds
from tests.bench.scale.process_tree import Took, watched
from tests.made_models import write_made_component
from tests.tiny_models import write_tiny_flux, write_tiny_stable_diffusion, write_tiny_stable_diffusion_xl

from latentc.compiler.finished_units import share_finished
from latentc.recipes.published.catalogue import published_model

MODELS: Mapping[str, tuple[str, str]] = {
    "flux": ("flux.1-dev", "bfloat16"),
    "sd15": ("sd-1.5", "float16"),
    "sdxl": ("sdxl-base", "float16"),
}
"""Published models whose denoisers are made, and the dtype that they are published in."""
MAKERS: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "flux": (write_tiny_flux, "transformer"),
    "sd15": (write_tiny_stable_diffusion, "unet"),
    "sdxl": (write_tiny_stable_diffusion_xl, "unet"),
}
PASSES = (
    "canonicalize",
    "split-low-rank{rank=32, calibrated=false, refinements=0}",
    "quantize-int4",
)


def pipeline(name: str, home: Path, written_bytes: int | None) -> Path:
    """A pipeline whose denoiser is the model and whose other parts are tiny."""
    root = home / name
    if not root.exists():
        make, folder = MAKERS[name]
        part = home / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        make(part)
        shutil.rmtree(part / folder)
        published, dtype = MODELS[name]
        model = published_model(published)
        spec = model.family.spec(model.family.denoiser)
        write_made_component(
            part / folder, spec, model.config_of(spec), dtype=dtype, written_bytes=written_bytes
        )
        part.rename(root)
    return root


def build(
    root: Path,
    store: Path,
    memory_mib: int,
    workers: int,
    passes: Sequence[str] = PASSES,
    kill_at_share: float = 2,
) -> Took:
    """One build of the denoiser, watched, and killed once that share (0…1) of its layers is recorded."""
    command = [sys.executable, "-m", "tests.bench.scale.denoiser", str(root), str(store)]
    return watched(
        [*command, str(memory_mib), str(workers), *passes], lambda: recorded_share(store) >= kill_at_share
    )


def recorded_share(store: Path) -> float:
    """How many layers of an unfinished build are recorded, of all."""
    return max((share_finished(units) for units in store.glob("partial/*/units")), default=0.0)


def result_of(took: Took) -> Path:
    """The folder that a build says it wrote."""
    return next(Path(line.split()[1]) for line in took.output.splitlines() if line.startswith("result "))


def digests(folder: Path) -> dict[str, str]:
    """The bytes and the SHA-256 of every file."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.name] = f"{path.stat().st_size} bytes, {digest}"
    return found


def say(line: str) -> None:
    """One line at once, so that a log can be watched."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Print what each part took; 1 when a build failed or ended in other bytes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=sorted(MODELS), default="sd15")
    parser.add_argument("--home", type=Path, default=Path(".latentc/bench-scale"))
    parser.add_argument("--memory", type=int, default=0, help="MiB; 0: no budget")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--floor", action="store_true", help="also measure the floor")
    parser.add_argument("--written-gb", type=float, help="make holes of all weights beyond these")
    arguments = parser.parse_args()
    home, memory_mib, workers = arguments.home, arguments.memory, arguments.workers
    home.mkdir(parents=True, exist_ok=True)
    written = arguments.written_gb
    root = pipeline(arguments.model, home, None if written is None else round(written * 1e9))
    store = home / f"{arguments.model}-store"
    shutil.rmtree(store, ignore_errors=True)
    whole = build(root, store, memory_mib, workers)
    say(whole.output)
    say(
        f"whole: {whole.seconds:.1f} s, {whole.processor_s:.1f} s of processors, "
        f"peak {whole.peak_rss_mib:.0f} MiB resident, {whole.peak_pss_mib:.0f} MiB shared pages once"
    )
    if whole.code != 0:
        return 1
    wanted = digests(result_of(whole))
    for name, digest in wanted.items():
        say(f"{name}: {digest}")
    shutil.rmtree(store)
    if arguments.floor:
        for phase, seconds in floor_seconds(root / MAKERS[arguments.model][1], home, workers).items():
            say(f"floor: {phase} {seconds:.1f} s")
    for number in range(1, arguments.kills + 1):
        share = (number - 0.5) / arguments.kills
        took = build(root, store, memory_mib, workers, kill_at_share=share)
        if took.code is not None:
            say(f"kill {number} came too late: the build had ended with {took.code}")
            return 1
        share = recorded_share(store)
        say(f"kill {number}: after {took.seconds:.1f} s, {share:.1%} of the layers recorded")
    last = build(root, store, memory_mib, workers)
    same = last.code == 0 and digests(result_of(last)) == wanted
    say(f"then {last.seconds:.1f} s, peak {last.peak_rss_mib:.0f} MiB: {'same' if same else 'OTHER'} bytes")
    shutil.rmtree(store)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
