"""Fidelity: 4-bit methods against one another at equal bytes, on both demo models, plain and with outliers.

    python -m tests.bench.fidelity.run
    python -m tests.bench.fidelity.run --only 'shapes-flux-outliers/scaled/W4A4/*' --seeds 0 --prompts 16
    python -m tests.bench.fidelity.run --table

Each cell (model, ceiling, setting, method, seed) is one file; a killed run goes on where it was. A ROW is
model/ceiling/setting/method: shapes-sd, shapes-flux and the same with -outliers; literal or scaled; W4A16,
W4A8 or W4A4; nearest, scale-estimation, svdquant, svdquant-gptq, modelopt or ours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.fidelity.builds import build, metrics_of, share_of_fp16
from tests.bench.fidelity.cells import OUTLIERS, Cell, Result, Row, read_result, rows, write_result
from tests.bench.fidelity.families import FAMILIES, SHAPES_FLUX
from tests.bench.fidelity.layer import compare_layers, lines_of, read_layers
from tests.bench.fidelity.methods import Method, chain
from tests.bench.fidelity.outliers import read_spikiness, with_outliers
from tests.bench.fidelity.peer import Peer, measure
from tests.bench.fidelity.table import spikiness_lines, table

HOME = Path(".latentc/bench-fidelity")


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is missing and print the table; 1 when a cell failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=HOME, help="models, cells and the peer's environment")
    parser.add_argument("--store", type=Path, help="latentc's store; HOME/store otherwise")
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="patterns of rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--table", action="store_true", help="print what is there and measure nothing")
    arguments = parser.parse_args(words)
    home: Path = arguments.home
    chosen = list(rows(arguments.only))
    if not chosen:
        parser.error(f"no row matches {', '.join(arguments.only)}")
    failed = 0
    if not arguments.table:
        store = arguments.store or home / "store"
        failed = _measure_all(chosen, arguments.seeds, arguments.prompts, home, store)
    spiky = [(f"{one.name}{OUTLIERS}", read_spikiness(_outliers_of(one.name, home))) for one in FAMILIES]
    lines = [
        *spikiness_lines([(name, seen) for name, seen in spiky if seen is not None]),
        "",
        *lines_of(read_layers(home / "layers.json")),
        *table(chosen, arguments.seeds, arguments.prompts, home / "cells"),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(failed > 0)


def _measure_all(chosen: Sequence[Row], seeds: Sequence[int], prompts: int, home: Path, store: Path) -> int:
    """Measure what no file has; how many failed."""
    peer = Peer(home / "venv" / "bin" / "python")
    (home / "models").mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        with_outliers(family, family.folder, _outliers_of(family.name, home), seed=0)
    failed = 0
    try:
        compare_layers(_outliers_of(SHAPES_FLUX.name, home), store, peer, home / "layers.json")
    except (RuntimeError, OSError) as error:
        failed += 1
        _say(f"single layers: {error}")
    missing = [cell for cell in _cells(chosen, seeds, prompts) if read_result(cell, home / "cells") is None]
    total = len(missing)
    while missing:
        together = _together(missing)
        name = f"[{total - len(missing) + 1}/{total}] {together[0].row.name}"
        missing = [cell for cell in missing if cell not in together]
        try:
            results = _measured(together, home, store, peer)
        except (RuntimeError, OSError) as error:  # one method that cannot run leaves the others
            failed += len(together)
            _say(f"{name}: {error}")
            continue
        for cell, result in zip(together, results, strict=True):
            write_result(cell, result, home / "cells")
            psnr_db = result.metrics["pictures.psnr_db"]
            said = f"{psnr_db:.2f} dB at {result.share:.3f} of fp16, {result.seconds:.0f} s"
            _say(f"{name} seed {cell.seed}: {said}")
    return failed


def _together(missing: Sequence[Cell]) -> list[Cell]:
    """The next cell; for Model Optimizer, which keeps nothing, all seeds of its row."""
    first = missing[0]
    if first.row.method is not Method.MODELOPT:
        return [first]
    return [cell for cell in missing if cell.row == first.row]


def _cells(chosen: Sequence[Row], seeds: Sequence[int], prompts: int) -> Iterator[Cell]:
    """Seed by seed, so that the table is whole for the first one early."""
    for seed in seeds:
        for row in chosen:
            yield Cell(row, seed, prompts)


def _measured(cells: Sequence[Cell], home: Path, store: Path, peer: Peer) -> list[Result]:
    """What cells of one row came to."""
    began_s = time.monotonic()
    row = cells[0].row
    family = row.question.family
    model = _outliers_of(family.name, home) if row.spiky else family.folder
    if row.method is Method.MODELOPT:
        found = measure(cells, model, store, peer)
    else:
        found = []
        for cell in cells:
            with build(cell, model, chain(row.question, row.method), store) as out:
                found.append((share_of_fp16(out, family), metrics_of(out)))
    seconds = (time.monotonic() - began_s) / len(cells)
    return [Result(share, metrics, seconds) for share, metrics in found]


def _outliers_of(name: str, home: Path) -> Path:
    return home / "models" / f"{name}{OUTLIERS}"


def _say(line: str) -> None:
    """Write one line at once, so that a log can be watched."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
