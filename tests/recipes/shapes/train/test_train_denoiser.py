"""The loop that trains the demo denoisers: it learns, goes on where it was cut off, saves whole states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from latentc.recipes.shapes.train.train_denoiser import train_denoiser, update_average

Batch = np.ndarray[tuple[int], np.dtype[np.float64]]


class TwoTowers(nn.Module):
    """A model of two linear layers, of which one plays the text tower."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.denoiser = nn.Linear(4, 4)
        self.text = nn.Linear(4, 4)


def train(
    model: TwoTowers, state_file: Path, steps: int
) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Teach ``model`` to return its input; the batches it was given."""
    seen: list[Batch] = []

    def loss_of_batch(rng: np.random.Generator) -> torch.Tensor:
        batch = rng.standard_normal((16, 4))
        seen.append(batch[:, 0])
        values = torch.from_numpy(batch).float()
        loss: torch.Tensor = ((model.denoiser(model.text(values)) - values) ** 2).mean()
        return loss

    train_denoiser("test", model, [model.text], loss_of_batch, state_file, steps, seed=1, peak_rate=1e-2)
    return seen


def error_of(model: TwoTowers) -> float:
    """Mean squared error on inputs that training did not see."""
    values = torch.from_numpy(np.random.default_rng(99).standard_normal((256, 4))).float()
    with torch.no_grad():
        return float(((model.denoiser(model.text(values)) - values) ** 2).mean())


def test_training_teaches_the_model(tmp_path: Path) -> None:
    model = TwoTowers()
    before = error_of(model)
    train(model, tmp_path / "state.pt", steps=400)
    assert error_of(model) < 0.1 * before


def test_a_run_that_goes_on_keeps_what_was_learned_and_draws_new_batches(tmp_path: Path) -> None:
    model = TwoTowers()
    first = train(model, tmp_path / "state.pt", steps=300)
    learned = error_of(model)
    fresh = TwoTowers()
    second = train(fresh, tmp_path / "state.pt", steps=301)
    assert len(second) == 1
    assert not any(np.array_equal(second[0], batch) for batch in first)
    assert error_of(fresh) < 1.1 * learned


def test_no_half_written_state_stays_behind(tmp_path: Path) -> None:
    train(TwoTowers(), tmp_path / "deeper" / "state.pt", steps=2)
    assert [file.name for file in (tmp_path / "deeper").iterdir()] == ["state.pt"]


def test_the_text_tower_learns_more_slowly(tmp_path: Path) -> None:
    """AdamW's first step has the size of the learning rate, which is halved for the towers."""
    model, before = TwoTowers(), TwoTowers()
    train(model, tmp_path / "state.pt", steps=1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
    moved = {
        name: float((state[f"{name}.weight"] - before.state_dict()[f"{name}.weight"]).abs().median())
        for name in ("denoiser", "text")
    }
    assert abs(moved["text"] / moved["denoiser"] - 0.5) < 0.05


def test_the_average_follows_quickly_at_first_and_slowly_later() -> None:
    model = TwoTowers()
    for step, slowest, share in ((0, 0.998, 0.9), (10_000, 0.998, 0.002), (10_000, 0.995, 0.005)):
        average = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
        update_average(average, model, step, slowest)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(average[name], share * value)
