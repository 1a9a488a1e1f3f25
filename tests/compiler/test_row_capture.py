"""Rows are real inputs of their layer, of the right prompts, spread over the calls, the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latentc.compiler.row_capture import BatchRows, RowCapture
from latentc.passes.calibration import HELD_OUT_EVERY

TOKENS, WIDTH, PROMPTS, CALLS = 5, 8, 6, 4


class Layers(nn.Module):
    """A linear on tokens and one on whole entries, as a time embedding has it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(WIDTH, 3)
        self.entries = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.tokens(x).mean() + self.entries(x[:, 0, :2]).mean()
        return out


def labelled(prompts: range, call: int, *, guided: bool) -> torch.Tensor:
    """[B or 2B, T, K] whose first values say which prompt, call and token a row is of."""
    entries = list(prompts) * (2 if guided else 1)
    values = torch.zeros(len(entries), TOKENS, WIDTH)
    values[..., 0] = torch.tensor(entries)[:, None]
    values[..., 1] = call
    values[..., 2] = torch.arange(TOKENS)
    return values


def halves(out: Path, known: tuple[BatchRows | None, ...] = (None, None)) -> tuple[BatchRows, BatchRows]:
    """Capture two batches, those that are not found as ``known``; the model is the same each time."""
    out.mkdir(exist_ok=True)
    model = Layers()
    ended: list[BatchRows] = []
    with RowCapture(model, out, rows=64, prompts=PROMPTS, calls=CALLS, batches=2, seed=0) as capture:
        for batch, rows in zip((range(3), range(3, 6)), known, strict=True):
            if rows is not None and capture.find(rows):
                ended.append(rows)
                continue
            capture.begin(batch)
            for call in range(CALLS):
                model(labelled(batch, call, guided=True))
            ended.append(capture.end())
    return ended[0], ended[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("found", [(True, False), (False, True), (True, True), (False, False)])
def test_batches_that_are_found_need_not_be_drawn(tmp_path: Path, found: tuple[bool, bool]) -> None:
    first, second = halves(tmp_path)
    whole = contents(tmp_path)
    again = halves(tmp_path, (first if found[0] else None, second if found[1] else None))
    assert contents(tmp_path) == whole
    assert [rows.sha256.tobytes() for rows in again] == [first.sha256.tobytes(), second.sha256.tobytes()]


def test_damage_is_found_in_the_batch_that_it_is_in(tmp_path: Path) -> None:
    first, second = halves(tmp_path)
    whole = contents(tmp_path)
    file = tmp_path / "tokens.weight.fit.npy"
    data = bytearray(whole[file.name])
    data[-1] ^= 1  # the last row: of the second batch
    file.write_bytes(data)
    with RowCapture(Layers(), tmp_path, rows=64, prompts=PROMPTS, calls=CALLS, batches=2, seed=0) as capture:
        assert capture.find(first)
        assert not capture.find(second)
    halves(tmp_path, (first, second))
    assert contents(tmp_path) == whole


def test_what_does_not_belong_is_removed_and_a_header_is_mended(tmp_path: Path) -> None:
    first, second = halves(tmp_path)
    whole = contents(tmp_path)
    (tmp_path / "odd.npy").write_bytes(b"x")
    file = tmp_path / "tokens.weight.fit.npy"
    file.write_bytes(bytes(20) + whole[file.name][20:] + b"more")
    halves(tmp_path, (first, second))
    assert contents(tmp_path) == whole


def captured(out: Path, *, rows: int = 64, guided: bool = True, prompts: int = PROMPTS) -> Path:
    out.mkdir()
    model = Layers()
    batches = [range(0, prompts // 2), range(prompts // 2, prompts)] if prompts > 1 else [range(1)]
    capture = RowCapture(model, out, rows=rows, prompts=prompts, calls=CALLS, batches=len(batches), seed=0)
    with capture:
        for batch in batches:
            capture.begin(batch)
            for call in range(CALLS):
                model(labelled(batch, call, guided=guided))
    model(labelled(range(3), 0, guided=False))  # after the end nothing looks on
    return out


def test_files_and_their_sizes(tmp_path: Path) -> None:
    out = captured(tmp_path / "out")
    sizes = {path.name: np.load(path).shape for path in out.iterdir()}
    assert sizes == {
        "tokens.weight.fit.npy": (64, WIDTH),
        "tokens.weight.held_out.npy": (32, WIDTH),
        "entries.weight.fit.npy": (64, 2),
        "entries.weight.held_out.npy": (32, 2),
    }


def test_rows_are_spread_over_calls_and_never_of_the_other_kinds_prompts(tmp_path: Path) -> None:
    out = captured(tmp_path / "out")
    for kind in ("fit", "held_out"):
        rows = np.load(out / f"tokens.weight.{kind}.npy")
        assert np.bincount(rows[:, 1].astype(int)).tolist() == [len(rows) // CALLS] * CALLS
        held_out = {prompt for prompt in range(PROMPTS) if prompt % HELD_OUT_EVERY == HELD_OUT_EVERY - 1}
        wanted = held_out if kind == "held_out" else set(range(PROMPTS)) - held_out
        assert set(rows[:, 0].astype(int)) == wanted
        assert set(rows[:, 2].astype(int)) == set(range(TOKENS))


def test_the_same_rows_again(tmp_path: Path) -> None:
    first, second = captured(tmp_path / "first"), captured(tmp_path / "second")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_a_single_prompt_serves_for_both(tmp_path: Path) -> None:
    out = captured(tmp_path / "out", prompts=1, guided=False)
    assert set(np.load(out / "tokens.weight.held_out.npy")[:, 0]) == {0.0}
