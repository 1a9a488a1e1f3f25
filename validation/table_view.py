"""Tables as the page shows them: losses by layer, sizes, refusals; and numbers in units that read well."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from latentc.validation.report import LayerRow, RefusalRow, SizeRow, TrialRow

_WAYS_NAMED = 3


@dataclass(frozen=True)
class BarView:
    """A layer's loss."""

    label: str
    kind: str
    text: str
    percent: float


@dataclass(frozen=True)
class SizeView:
    """A component's weights as two bars, in percent of the largest fp16 size."""

    label: str
    fp16: str
    bundle: str
    share: str
    fp16_percent: float
    quantized_percent: float
    rest_percent: float


@dataclass(frozen=True)
class TrialTable:
    """What one pass tried: its name, a summary, and for each layer the ways with error and whether taken."""

    pass_name: str
    summary: str
    layers: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...]


def layer_bars(layers: Sequence[LayerRow]) -> tuple[BarView, ...]:
    """Losses, the worst first, what is not finite before them."""
    finite = [row for row in layers if math.isfinite(row.relative_error)]
    top = max((row.relative_error for row in finite), default=0.0) or 1.0
    strange = [row for row in layers if not math.isfinite(row.relative_error)]
    ordered = strange + sorted(finite, key=lambda row: (-row.relative_error, row.component, row.layer))
    return tuple(
        BarView(
            f"{row.component}/{row.layer.removesuffix('.weight')}",
            row.pass_name,
            _percent(row.relative_error),
            100 * row.relative_error / top if math.isfinite(row.relative_error) else 100.0,
        )
        for row in ordered
    )


def size_bars(sizes: Sequence[SizeRow]) -> tuple[SizeView, ...]:
    """A row a component, and their sum as the last one on a scale of its own."""
    if not sizes:
        return ()
    total = SizeRow(
        "all components",
        sum(row.fp16_bytes for row in sizes),
        sum(row.bundle_bytes for row in sizes),
        sum(row.quantized_fp16_bytes for row in sizes),
        sum(row.quantized_bytes for row in sizes),
    )
    top = max(max(row.fp16_bytes, row.bundle_bytes) for row in sizes) or 1
    return tuple(
        SizeView(
            label=row.component,
            fp16=megabytes(row.fp16_bytes),
            bundle=megabytes(row.bundle_bytes),
            share=f"{row.bundle_bytes / row.fp16_bytes:.2f}" if row.fp16_bytes else "",
            fp16_percent=100 * row.fp16_bytes / scale,
            quantized_percent=100 * row.quantized_bytes / scale,
            rest_percent=100 * max(0, row.bundle_bytes - row.quantized_bytes) / scale,
        )
        for row, scale in [
            *((row, top) for row in sizes),
            (total, max(total.fp16_bytes, total.bundle_bytes, 1)),
        ]
    )


def trial_tables(trials: Sequence[TrialRow]) -> tuple[TrialTable, ...]:
    """A table a pass: how often each way was taken, and each layer's errors by way."""
    tables = []
    for name in dict.fromkeys(row.pass_name for row in trials):
        rows = [row for row in trials if row.pass_name == name]
        layers: dict[str, list[TrialRow]] = {}
        for row in rows:
            layers.setdefault(f"{row.component}/{row.layer.removesuffix('.weight')}", []).append(row)
        taken = Counter(row.way for row in rows if row.taken)
        tables.append(
            TrialTable(
                name,
                f"{len(layers)} {'layer' if len(layers) == 1 else 'layers'}: {_counts(taken)}",
                tuple(
                    (label, tuple((one.way, _percent(one.relative_error), one.taken) for one in tried))
                    for label, tried in layers.items()
                ),
            )
        )
    return tuple(tables)


def refusal_groups(refusals: Sequence[RefusalRow]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Reasons, the most frequent first, each with the places it was given for."""
    counts = Counter((row.pass_name, row.why) for row in refusals)
    return tuple(
        (
            f"{name}: {why}",
            tuple(
                f"{row.component}/{row.where}" for row in refusals if (row.pass_name, row.why) == (name, why)
            ),
        )
        for (name, why), _ in counts.most_common()
    )


def _counts(taken: Counter[str]) -> str:
    named = ", ".join(f"{way} taken in {count}" for way, count in taken.most_common(_WAYS_NAMED))
    others = len(taken) - _WAYS_NAMED
    return f"{named}, {others} other ways in the rest" if others > 0 else named


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if math.isfinite(share) else "not finite"


def megabytes(size_bytes: int) -> str:
    """Bytes as MB (10⁶), three digits."""
    return f"{size_bytes / 1e6:.3g} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.1 else f"{seconds:.3g} s"
