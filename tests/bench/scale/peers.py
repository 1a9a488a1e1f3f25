"""Peers: what an INT4 denoiser takes with other tools, export included, beside latentc on one checkpoint.

    python -m tests.bench.scale.peers --model sd15 --olive PYTHON --modelopt PYTHON

Every tool begins at a pipeline on disk. Peers get one ONNX file that torch's own exporter makes of the loaded
denoiser in float32, which is the form that all three take; latentc exports for itself. Then onnxruntime runs
each result once, and TensorRT for RTX builds an engine of it. NNCF runs in our own environment.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from tests.bench.scale.process_tree import Took, watched
from tests.bench.scale.run import PASSES, build, pipeline, result_of, say

from latentc.compiler.stages.rtx_engine import build_rtx_engine
from latentc.errors import LatentcError
from latentc.passes.base import PassContext
from latentc.passes.model_file import read_model, write_model
from latentc.passes.pass_text import pass_from_text

CHILD = Path(__file__).with_name("peer_child.py")
COMPUTE_CAPABILITY = "8.6"
SIZES: Mapping[str, int] = {"B": 1, "h": 64, "w": 64, "T": 77}
"""Of axes that a graph leaves open."""
OURS: Mapping[str, tuple[str, ...]] = {
    "latentc, INT4": ("canonicalize", "quantize-int4"),
    "latentc, branch of rank 32 and INT4": PASSES,
}


def child(python: str, *arguments: str | Path) -> Took:
    """A step of peer_child.py, watched."""
    return watched([python, "-W", "ignore", str(CHILD), *map(str, arguments)])


def row(name: str, took: Took, export: Took | None, model: Path, engine_model: Path | None) -> str:
    """A line of Markdown.

    Args:
        name: of the tool.
        took: by the tool itself.
        export: what went before it, when that was not its own.
        model: the result; what onnxruntime runs.
        engine_model: what TensorRT gets; None: an engine of it would take too much memory.
    """
    if took.code != 0:
        say(took.output[-2500:])
        return f"| {name} | fails after {took.seconds:.1f} s at {took.peak_rss_mib:.0f} MiB | | | | | |"
    peak_mib = max(took.peak_rss_mib, export.peak_rss_mib if export else 0.0)
    cells = [
        f"{took.seconds:.1f}",
        f"{took.seconds + (export.seconds if export else 0.0):.1f}",
        f"{peak_mib:.0f}",
        f"{sum(file.stat().st_size for file in model.parent.iterdir() if file.is_file()) / 1e6:.0f}",
        runs(model),
        engine(engine_model) if engine_model else "not built",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def runs(model: Path) -> str:
    """Whether onnxruntime runs it."""
    done = child(sys.executable, "load", model)
    if done.code != 0:
        say(done.output[-1500:])
    return "runs" if done.code == 0 else "refused"


def engine(model: Path) -> str:
    """What TensorRT for RTX makes of it."""
    shapes = {
        str(value.name): tuple(
            size if isinstance(size, int) else SIZES[str(size)] for size in value.shape or ()
        )
        for value in ir.load(model).graph.inputs
    }
    out = model.with_suffix(".engine")
    try:
        build_rtx_engine("denoiser", model, out, (COMPUTE_CAPABILITY,), [shapes])
    except LatentcError as error:
        say(str(error))
        return "refused"
    size = out.stat().st_size
    out.unlink()
    return f"{size / 1e6:.0f} MB"


def ours(name: str, passes: tuple[str, ...], root: Path, home: Path) -> None:
    """Print a row of latentc."""
    store, cast = home / "peer-ours", home / "peer-cast"
    for folder in (store, cast):
        shutil.rmtree(folder, ignore_errors=True)
    took = build(root, store, memory_mib=0, workers=2, passes=passes)
    result = result_of(took)
    cast.mkdir()
    write_model(pass_from_text("cast")(read_model(result), PassContext()).model, cast)
    say(row(name, took, None, result / "model.onnx", cast / "model.onnx"))
    for folder in (store, cast):
        shutil.rmtree(folder)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("sd15", "sdxl"), default="sd15")
    parser.add_argument("--home", type=Path, default=Path(".latentc/bench-scale"))
    parser.add_argument("--olive", default="", help="an interpreter that has olive-ai")
    parser.add_argument("--modelopt", default="", help="an interpreter that has nvidia-modelopt[onnx]")
    options = parser.parse_args()
    home: Path = options.home.resolve()
    root = pipeline(options.model, home, None)
    say("| tool | its work, s | with export, s | peak MiB | MB | onnxruntime | TensorRT for RTX |")
    say("|---|---:|---:|---:|---:|---|---|")
    for name, passes in OURS.items():
        ours(name, passes, root, home)
    float_model = home / "peer-float" / "model.onnx"
    shutil.rmtree(float_model.parent, ignore_errors=True)
    float_model.parent.mkdir()
    exported = child(sys.executable, "export", root, float_model)
    say(row("torch.onnx.export, float32", exported, None, float_model, None))
    peers = {"nncf": sys.executable, "olive": options.olive, "modelopt": options.modelopt}
    for peer, python in peers.items():
        if python:
            out = home / f"peer-{peer}" / "model.onnx"
            shutil.rmtree(out.parent, ignore_errors=True)
            out.parent.mkdir()
            say(row(peer, child(python, peer, float_model, out), exported, out, out))
            shutil.rmtree(out.parent)
    shutil.rmtree(float_model.parent)


if __name__ == "__main__":
    main()
