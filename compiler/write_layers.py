"""Write layers: pull a model's units through their passes, several at once, and go on after a kill.

A unit is written, released and recorded as soon as it is done: its SHA-256, the values that stay in the
graph and what the passes lost in it. A record counts only where the data file still agrees with it.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentc.errors import ResourceError
from latentc.passes.base import LayerLoss, LossLedger, Trial
from latentc.passes.model_writer import DATA_FILE, ModelWriter, Written
from latentc.passes.one_thread import one_thread

if TYPE_CHECKING:
    from latentc.compiler.budget import Budget
    from latentc.compiler.finished_units import FinishedUnits, Unit
    from latentc.compiler.stage import Progress
    from latentc.passes.layer_units import LayerUnit

_MIB = 1 << 20


@dataclass(frozen=True)
class _Done:
    """A unit that is written, and what was lost in it."""

    written: Written
    ledger: LossLedger
    is_new: bool


def write_layers(
    writer: ModelWriter,
    folder: Path,
    ledger: LossLedger,
    finished: FinishedUnits,
    budget: Budget,
    progress: Progress,
) -> None:
    """Write every unit of ``writer`` into ``folder``, in any order, then the graph.

    Args:
        writer: of ``folder``.
        folder: may hold what an earlier call wrote.
        ledger: receives what the passes lose.
        finished: what earlier calls recorded.
        budget: how many units at once, in how much memory.
        progress: told which share of the bytes is written.

    Raises:
        ResourceError: the disk is too small, or the budget for the largest unit.
        OSError: the disk became full; what is recorded stays.
    """
    units = writer.units
    room_bytes = budget.room_bytes(str(folder), max((unit.need_bytes for unit in units), default=0))
    _require_disk(folder, writer)
    writer.open()
    waiting = deque(range(len(units)))
    running: dict[Future[_Done], int] = {}
    done: dict[int, Written] = {}
    done_bytes = 0

    def make(number: int) -> _Done:
        return _found(writer, units[number], finished.read(number)) or _made(writer, units[number], ledger)

    def fits(unit: LayerUnit) -> bool:
        used_bytes = sum(units[number].need_bytes for number in running.values())
        return not running or room_bytes is None or used_bytes + unit.need_bytes <= room_bytes

    # one thread a product, so that neither the workers nor the cores decide in which order sums are formed
    with one_thread(), ThreadPoolExecutor(budget.workers) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < budget.workers and fits(units[waiting[0]]):
                    number = waiting.popleft()
                    running[pool.submit(make, number)] = number
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number = running.pop(future)
                    one = future.result()
                    if one.is_new:
                        finished.write(number, _record(one))
                    ledger.add(one.ledger)
                    done[number] = one.written
                    done_bytes += units[number].size_bytes
                    progress(done_bytes / writer.size_bytes, units[number].name)
        finally:
            for future in running:
                future.cancel()
    writer.finish(done.values())


def _made(writer: ModelWriter, unit: LayerUnit, ledger: LossLedger) -> _Done:
    with ledger.apart() as own:
        written = writer.write(unit)
    return _Done(written, own, is_new=True)


def _found(writer: ModelWriter, unit: LayerUnit, record: Unit | None) -> _Done | None:
    """``unit`` as it was recorded; None when it was not, or is not what lies in the data file."""
    if record is None:
        return None
    names = [name for name, _ in unit.tensors]
    inline = {name: bytes(record[f"inline {name}"]) for name in names if f"inline {name}" in record}
    written = Written(bytes(record["digest"]), inline)
    if not writer.holds(unit, written):
        return None
    told = json.loads(str(record["ledger"]))
    own = LossLedger([LayerLoss(**one) for one in told["losses"]], [Trial(**one) for one in told["trials"]])
    return _Done(written, own, is_new=False)


def _record(one: _Done) -> Unit:
    told = {
        "losses": [asdict(loss) for loss in one.ledger.losses],
        "trials": [asdict(trial) for trial in one.ledger.trials],
    }
    inline = {
        f"inline {name}": np.frombuffer(content, np.uint8) for name, content in one.written.inline.items()
    }
    return {
        "digest": np.frombuffer(one.written.digest, np.uint8),
        "ledger": np.asarray(json.dumps(told)),
        **inline,
    }


def _require_disk(folder: Path, writer: ModelWriter) -> None:
    """Refuse to begin what the disk cannot hold; what an earlier call wrote is counted."""
    data = folder / DATA_FILE
    written_bytes = data.stat().st_blocks * 512 if data.exists() else 0
    free_bytes = shutil.disk_usage(folder).free
    wanted_bytes = writer.data_bytes - written_bytes
    if wanted_bytes > free_bytes:
        raise ResourceError(
            str(folder),
            f"the disk is too small: {wanted_bytes // _MIB + 1} MiB more will be written, "
            f"{free_bytes // _MIB} MiB are free",
            "free space, or choose another disk with --store",
        )
