"""Row capture: a bounded sample of what every linear of the denoiser multiplies, written while it draws.

out/<weight>.fit.npy        [R, K] float32, rows that a pass may fit to
out/<weight>.held_out.npy   [R', K] float32, rows of other prompts, to judge by

Each call of the denoiser gives the same number of rows, so they are spread evenly over the trajectory; every
third prompt is held out. Rows lie on disk as they come, each call's at a place of their own: memory does not
grow with the model, and a batch whose rows are all there is told from its hash and need not be drawn again.

Files are written and not mapped: where a mapped file meets a full disk, the process is killed by SIGBUS.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latentc.passes.calibration import HELD_OUT_EVERY, is_held_out
from latentc.passes.layer_rows import RowKind, rows_file
from latentc.runtime.whole_file import sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    import numpy.typing as npt


_FLOAT_BYTES = 4

_READ_BYTES = 2**20


@dataclass(frozen=True)
class BatchRows:
    """What tells the rows of a batch that lie on disk.

    Args:
        calls: [L] int64, how many calls each linear had given rows of when the batch was done.
        sha256: [32] uint8, of the rows that this batch gave.
    """

    calls: npt.NDArray[np.int64]
    sha256: npt.NDArray[np.uint8]


class RowCapture:
    """Hooks on the linears of a module, from ``with`` to its end.

    Args:
        module: a flat component's original; its linears' names give the files theirs.
        out: an existing folder; what it holds from before is found batch by batch, or written over.
        rows: R, how many rows of each linear to keep to fit to; half as many are held out.
        prompts: how many will be drawn; with fewer than three, the same rows serve for both.
        calls: how often the denoiser will be called for each batch.
        batches: how many batches will be drawn.
        seed: which rows are taken.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        out: Path,
        *,
        rows: int,
        prompts: int,
        calls: int,
        batches: int,
        seed: int,
    ) -> None:
        self._out = out
        self._quotas = {
            RowKind.FIT: -(-rows // (calls * batches)),
            RowKind.HELD_OUT: -(-rows // (2 * calls * batches)),
        }
        self._calls = calls * batches
        self._prompts = prompts
        self._seed = seed
        self._batch = range(0)
        self._ready: set[Path] = set()
        self._linears = {
            f"{name}.weight": part
            for name, part in module.named_modules()
            if isinstance(part, torch.nn.Linear)
        }
        self._names = list(self._linears)
        self._seen = dict.fromkeys(self._names, 0)
        self._before = dict(self._seen)
        self._hooks: list[Any] = []

    def __enter__(self) -> RowCapture:
        mine = {rows_file(self._out, name, kind) for name in self._names for kind in RowKind}
        for path in self._out.iterdir():
            if path not in mine:
                path.unlink()
        self._hooks = [
            part.register_forward_pre_hook(self._hook(name)) for name, part in self._linears.items()
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def begin(self, batch: range) -> None:
        """Say which prompts the next calls draw."""
        self._batch = batch
        self._before = dict(self._seen)

    def end(self) -> BatchRows:
        """Make the rows since ``begin`` last through a power cut, and say what tells them.

        Raises:
            OSError: the disk does not take them.
        """
        for name, kind, _, _ in self._parts(self._before, self._seen):
            sync(rows_file(self._out, name, kind))
        sync(self._out)
        return BatchRows(
            np.array([self._seen[name] for name in self._names], np.int64),
            np.frombuffer(self._sha256(self._before, self._seen), np.uint8),
        )

    def find(self, batch: BatchRows) -> bool:
        """Go past the next batch if its rows lie there to the last bit; else False, and it is to be drawn."""
        seen = dict(zip(self._names, batch.calls.tolist(), strict=True))
        for name, kind, _, _ in self._parts(self._seen, seen):
            if not rows_file(self._out, name, kind).exists():
                return False
            self._prepare(name, kind)
        if self._sha256(self._seen, seen) != batch.sha256.tobytes():
            return False
        self._seen = seen
        return True

    def _hook(self, name: str) -> Any:  # noqa: ANN401 # torch's hooks are untyped
        def look(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            self._look(name, given[0])

        return look

    def _look(self, name: str, given: torch.Tensor) -> None:
        call = self._seen[name]
        if call >= self._calls:
            return  # a layer that runs twice in a call: the first calls have filled its share
        self._seen[name] = call + 1
        B = len(self._batch)
        entries = given.detach().reshape(len(given), -1, given.shape[-1])
        prompts = [self._batch[index % B] for index in range(len(entries))]
        for kind, quota in self._quotas.items():
            wanted = [
                index
                for index, prompt in enumerate(prompts)
                if self._prompts < HELD_OUT_EVERY or _kind(prompt) == kind
            ]
            random = np.random.default_rng([self._seed, zlib.crc32(f"{name}.{kind}".encode()), call])
            if not wanted:  # a batch without prompts of this kind: others fill its share
                wanted = list(range(len(entries)))
            picked = random.choice(wanted, quota), random.integers(0, entries.shape[1], quota)
            rows = np.ascontiguousarray(entries[picked[0], picked[1]].cpu().numpy(), np.float32)
            self._prepare(name, kind)
            with rows_file(self._out, name, kind).open("r+b") as file:
                file.seek(len(self._header(name, kind)) + call * quota * rows.shape[1] * _FLOAT_BYTES)
                file.write(rows.data)

    def _prepare(self, name: str, kind: RowKind) -> None:
        """Give a file its header and its size, which a killed process may not have done."""
        path = rows_file(self._out, name, kind)
        if path in self._ready:
            return
        header = self._header(name, kind)
        with path.open("r+b" if path.exists() else "xb") as file:
            file.write(header)
            file.truncate(len(header) + self._calls * self._quotas[kind] * self._width(name) * _FLOAT_BYTES)
        self._ready.add(path)

    def _header(self, name: str, kind: RowKind) -> bytes:
        header = io.BytesIO()
        shape = (self._quotas[kind] * self._calls, self._width(name))
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return header.getvalue()

    def _width(self, name: str) -> int:
        return self._linears[name].in_features

    def _parts(
        self, before: Mapping[str, int], after: Mapping[str, int]
    ) -> Iterator[tuple[str, RowKind, int, int]]:
        """Which bytes of which files hold the rows of the calls from ``before`` to ``after``."""
        for name in self._names:
            for kind, quota in self._quotas.items():
                if after[name] > before[name]:
                    call_bytes = quota * self._width(name) * _FLOAT_BYTES
                    header_bytes = len(self._header(name, kind))
                    yield (
                        name,
                        kind,
                        header_bytes + before[name] * call_bytes,
                        header_bytes + after[name] * call_bytes,
                    )

    def _sha256(self, before: Mapping[str, int], after: Mapping[str, int]) -> bytes:
        found = hashlib.sha256()
        for name, kind, start, stop in self._parts(before, after):
            with rows_file(self._out, name, kind).open("rb") as file:
                file.seek(start)
                while start < stop and (data := file.read(min(_READ_BYTES, stop - start))):
                    found.update(data)
                    start += len(data)
        return found.digest()


def _kind(prompt: int) -> RowKind:
    return RowKind.HELD_OUT if is_held_out(prompt) else RowKind.FIT
