"""Batches: how many pictures are drawn together."""

from latentc.compiler.batches import batch_size, batches_of


def test_large_pictures_are_drawn_one_by_one() -> None:
    assert [batch_size(side, side) for side in (64, 128, 256, 512, 1024)] == [16, 16, 4, 1, 1]


def test_every_prompt_is_in_one_batch() -> None:
    assert batches_of(5, 256, 256) == (range(0, 4), range(4, 5))
