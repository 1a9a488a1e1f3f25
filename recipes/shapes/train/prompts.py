"""Captions as token tables and as attribute labels, so that training never tokenizes twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from latentc.recipes.shapes.caption import caption
from latentc.recipes.shapes.scene import Background, Colour, Position, Relation, Scene, Shape, Size
from latentc.recipes.shapes.train.vocabulary import MAX_TOKENS

PARAPHRASES = (0, 1, 4, 15)
"""Seeds of the captions in the table: with them every form of the grammar occurs once for two things."""

SLOTS = {
    "background": len(Background),
    "placement": len(Position) + len(Relation),
    "size 1": len(Size),
    "colour 1": len(Colour),
    "shape 1": len(Shape),
    "size 2": len(Size) + 1,
    "colour 2": len(Colour) + 1,
    "shape 2": len(Shape) + 1,
}
"""What each label column of ``labels`` counts; the last choice of a second thing is 'none'."""

_CELLS = 9
NOTHING = (len(Size), len(Colour), len(Shape))


@dataclass(frozen=True)
class PromptTable:
    """Tokens of every paraphrase of every scene.

    Args:
        tokens: [scenes, paraphrases, T] int16.
    """

    tokens: torch.Tensor

    def draw(
        self, rows: np.ndarray[tuple[int], np.dtype[np.int64]], rng: np.random.Generator
    ) -> torch.Tensor:
        """Tokens of one random paraphrase of each row's scene: [B, T] int64."""
        which = torch.from_numpy(rng.integers(0, len(PARAPHRASES), len(rows)))
        return self.tokens[torch.from_numpy(rows), which].long()


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> torch.Tensor:
    """[B, T] int64, padded to the fixed length the pipelines use."""
    batch = tokenizer(
        list(texts), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    tokens: torch.Tensor = batch.input_ids
    return tokens


def prompt_table(tokenizer: PreTrainedTokenizerBase, scenes: Sequence[Scene]) -> PromptTable:
    """Tokenize all paraphrases of ``scenes``."""
    columns = [
        tokenize(tokenizer, [caption(scene, seed) for scene in scenes]).to(torch.int16)
        for seed in PARAPHRASES
    ]
    return PromptTable(torch.stack(columns, dim=1))


def labels(scenes: Sequence[Scene]) -> torch.Tensor:
    """What each scene holds, one column for each of ``SLOTS``: [scenes, 8] int64."""
    placements = [*Position, *Relation]
    rows = []
    for scene in scenes:
        first = _thing_labels(scene, 0)
        second = _thing_labels(scene, 1) if len(scene.things) == 2 else NOTHING
        rows.append(
            (list(Background).index(scene.background), placements.index(scene.placement), *first, *second)
        )
    return torch.tensor(rows)


def cell_labels(scenes: Sequence[Scene]) -> torch.Tensor:
    """Size, colour and shape of what stands in each cell of a 3x3 grid: [scenes, 9, 3] int64."""
    rows = []
    for scene in scenes:
        cells = [NOTHING] * _CELLS
        if scene.placement is Relation.LEFT_OF:
            places = [3, 5]
        elif scene.placement is Relation.ABOVE:
            places = [1, 7]
        else:
            places = [list(Position).index(Position(scene.placement))]
        for thing, place in enumerate(places):
            cells[place] = _thing_labels(scene, thing)
        rows.append(cells)
    return torch.tensor(rows)


def _thing_labels(scene: Scene, thing: int) -> tuple[int, int, int]:
    seen = scene.things[thing]
    return list(Size).index(seen.size), list(Colour).index(seen.colour), list(Shape).index(seen.shape)
