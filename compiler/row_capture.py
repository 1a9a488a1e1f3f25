"""Row capture: a bounded sample of what every linear of the denoiser multiplies, written while it draws.

out/<weight>.fit.npy        [R, K] float32, rows that a pass may fit to
out/<weight>.held_out.npy   [R', K] float32, rows of other prompts, to judge by

Each call of the denoiser gives the same number of rows, so they are spread evenly over the trajectory; every
third prompt is held out. Rows lie on disk as they come: memory does not grow with the model.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latentc.passes.calibration import HELD_OUT_EVERY, is_held_out
from latentc.passes.layer_rows import RowKind, rows_file

if TYPE_CHECKING:
    from types import TracebackType

    import numpy.typing as npt


class RowCapture:
    """Hooks on the linears of a module, from ``with`` to its end.

    Args:
        module: a flat component's original; its linears' names give the files theirs.
        out: an existing, empty folder.
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
        self._files: dict[tuple[str, RowKind], npt.NDArray[np.float32]] = {}
        self._seen: dict[str, int] = {}
        self._linears = {
            f"{name}.weight": part
            for name, part in module.named_modules()
            if isinstance(part, torch.nn.Linear)
        }
        self._hooks: list[Any] = []

    def __enter__(self) -> RowCapture:
        self._hooks = [
            part.register_forward_pre_hook(self._hook(name)) for name, part in self._linears.items()
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        for rows in self._files.values():
            getattr(rows, "flush", lambda: None)()
        self._files.clear()

    def begin(self, batch: range) -> None:
        """Say which prompts the next calls draw."""
        self._batch = batch

    def _hook(self, name: str) -> Any:  # noqa: ANN401 # torch's hooks are untyped
        def look(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            self._look(name, given[0])

        return look

    def _look(self, name: str, given: torch.Tensor) -> None:
        call = self._seen.get(name, 0)
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
            rows = self._file(name, kind, given.shape[-1])
            start = call * quota
            if not wanted:  # a batch without prompts of this kind: others fill its share
                wanted = list(range(len(entries)))
            picked = random.choice(wanted, quota), random.integers(0, entries.shape[1], quota)
            rows[start : start + quota] = entries[picked[0], picked[1]].numpy()

    def _file(self, name: str, kind: RowKind, width: int) -> npt.NDArray[np.float32]:
        key = (name, kind)
        if key not in self._files:
            self._files[key] = np.lib.format.open_memmap(
                rows_file(self._out, name, kind),
                mode="w+",
                dtype=np.float32,
                shape=(self._quotas[kind] * self._calls, width),
            )
        return self._files[key]


def _kind(prompt: int) -> RowKind:
    return RowKind.HELD_OUT if is_held_out(prompt) else RowKind.FIT
