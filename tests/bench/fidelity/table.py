"""Table: the finished cells as markdown, with what is missing marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

from tests.bench.fidelity.cells import METRICS, Cell, Result, Row, read_result
from tests.bench.fidelity.methods import TITLES, ceiling_share
from tests.bench.fidelity.outliers import Spikiness

_DIGITS = dict(zip(METRICS, (2, 2, 4, 4, 2, 3), strict=True))
_ABOVE = 5e-4
"""A share may be this much above its ceiling by rounding in the table."""


def table(rows: Sequence[Row], seeds: Sequence[int], prompts: int, cells: Path) -> Iterator[str]:
    """Markdown lines: a block for each model and ceiling, a row for each setting and method.

    Figures are means over the seeds with the deviation between seeds; a row that lacks seeds says so.

    Args:
        rows: which.
        seeds: which.
        prompts: as the cells were measured with.
        cells: folder of the cells.
    """
    block = ""
    for row in rows:
        limit = ceiling_share(row.question.family, row.question.ceiling)
        title = f"{row.model}, at most {limit:.3f} of fp16 ({row.question.ceiling})"
        if title != block:
            block = title
            yield ""
            yield f"**{title}**"
            yield ""
            yield (
                "| setting | method | of fp16 | last latent dB | PSNR dB | SSIM | feature distance "
                "| CLIP score | right |"
            )
            yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
        found = [read_result(Cell(row, seed, prompts), cells) for seed in seeds]
        yield _line(row, limit, [one for one in found if one is not None], len(seeds))


def spikiness_lines(models: Sequence[tuple[str, Spikiness]]) -> Iterator[str]:
    """What the linears of the models with outliers read, before and after."""
    yield "| model | max/rms before | after | over the other channels' rms | moved by |"
    yield "|---|---|---|---|---|"
    for name, seen in models:
        spans = (seen.ratio_before, seen.ratio_after, seen.channel_ratio_after)
        told = " | ".join(f"median {middle:.0f}, largest {largest:.0f}" for middle, largest in spans)
        yield f"| {name} | {told} | {seen.moved:.0e} |"


def _line(row: Row, limit: float, found: Sequence[Result], wanted: int) -> str:
    method = TITLES[row.method]
    if not found:
        return f"| {row.question.setting} | {method} | {' | '.join(['missing'] * 7)} |"
    if len(found) < wanted:
        method += f" ({len(found)} of {wanted} seeds)"
    shares = {one.share for one in found}
    share = f"{max(shares):.3f}" + (" above the ceiling" if max(shares) > limit + _ABOVE else "")
    figures = [_figure([one.metrics[name] for one in found], _DIGITS[name]) for name in METRICS]
    return f"| {row.question.setting} | {method} | {share} | {' | '.join(figures)} |"


def _figure(values: Sequence[float], digits: int) -> str:
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"
