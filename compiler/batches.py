"""Batches: which prompts the original draws together."""

from __future__ import annotations

MOST_TOGETHER = 16
"""Prompts drawn together at most."""

PIXELS_TOGETHER = 2**18
"""Pixels drawn together at most, but at least one picture: a VAE decoder takes about 10 KiB a pixel."""


def batch_size(height: int, width: int) -> int:
    """How many pictures of ``height`` × ``width`` pixels are drawn together; sums depend on it a little."""
    return max(1, min(MOST_TOGETHER, PIXELS_TOGETHER // (height * width)))


def batches_of(prompts: int, height: int, width: int) -> tuple[range, ...]:
    """Which of ``prompts`` prompts are drawn together, for pictures of ``height`` × ``width`` pixels."""
    together = batch_size(height, width)
    return tuple(range(start, min(start + together, prompts)) for start in range(0, prompts, together))
