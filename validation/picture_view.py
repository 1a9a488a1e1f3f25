"""Pictures as the page shows them: both sides and their difference, and all PSNRs on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentc.runtime.picture import load_picture
from latentc.validation.embedded_picture import data_uri, heat_map
from latentc.validation.line_chart import Tick, nice_step
from latentc.validation.report import PictureRow


@dataclass(frozen=True)
class PairView:
    """A prompt with its pictures as data URIs."""

    number: int
    prompt: str
    original: str
    result: str
    difference: str
    psnr: str
    figures: str
    verdict: str
    status: str


@dataclass(frozen=True)
class Strip:
    """A scale of PSNR with one mark a prompt; everything in percent of its length."""

    marks: tuple[float, ...]
    ticks: tuple[Tick, ...]


def view_of_pair(row: PictureRow, folder: Path) -> PairView:
    """One prompt; raises UsageError when a picture in ``folder`` cannot be read."""
    original, result = load_picture(folder / row.original), load_picture(folder / row.result)
    figures = []
    if row.ssim is not None:
        figures.append(f"SSIM {row.ssim:.3f}")
    if row.feature_distance is not None:
        figures.append(f"feature distance {row.feature_distance:.3f}")
    if row.clip_score is not None:
        figures.append(f"CLIP {row.clip_score:.1f}")
    if row.result_wrong is None:
        verdict, status = "", "measured"
    elif row.result_wrong:
        verdict, status = f"wrong: {', '.join(row.result_wrong)}", "broken"
    else:
        verdict, status = "all as asked", "kept"
    if row.original_wrong and row.original_wrong == row.result_wrong:
        verdict = f"wrong as in the original: {', '.join(row.original_wrong)}"
    elif row.original_wrong:
        verdict += f" (original wrong: {', '.join(row.original_wrong)})"
    return PairView(
        number=row.index + 1,
        prompt=row.prompt,
        original=data_uri(original),
        result=data_uri(result),
        difference=data_uri(heat_map(result, original)),
        psnr=f"{row.psnr_db:.1f} dB" if math.isfinite(row.psnr_db) else "no PSNR",
        figures=" · ".join(figures),
        verdict=verdict,
        status=status,
    )


def spread(pairs: Sequence[PairView], count: int) -> tuple[PairView, ...]:
    """``count`` pairs from the worst to the best, evenly spread."""
    if len(pairs) <= count:
        return tuple(pairs)
    return tuple(pairs[round(n * (len(pairs) - 1) / (count - 1))] for n in range(count))


def strip_of_psnrs(psnrs: Sequence[float]) -> Strip | None:
    """The scale for finite ``psnrs`` in dB; None without any."""
    if not psnrs:
        return None
    step = nice_step(max(max(psnrs) - min(psnrs), 1.0))
    low = step * math.floor(min(psnrs) / step)
    count = max(1, math.ceil((max(psnrs) - low) / step))
    span = count * step
    return Strip(
        tuple(100 * (value - low) / span for value in psnrs),
        tuple(Tick(f"{low + n * step:g}", 100 * n / count) for n in range(count + 1)),
    )
