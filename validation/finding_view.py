"""Findings as the page shows them: rows with bars against their limits, and the score cards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from latentc.recipes.families.catalogue import FAMILIES
from latentc.validation.finding import Finding, with_unit
from latentc.validation.metric import METRICS, Direction, Metric
from latentc.validation.report import Report
from latentc.validation.table_view import duration, megabytes

PICTURE_TIME = "One picture"

_CHANGE = "_change"
_SUBJECTS = {
    "text_encoder": "Text encoder",
    "text_encoder_2": "Second text encoder",
    "unet": "Denoiser (unet)",
    "transformer": "Denoiser (transformer)",
    "vae_encoder": "VAE encoder",
    "vae_decoder": "VAE decoder",
    "trajectory": "Latents along the trajectory",
    "pictures": "Pictures",
}


@dataclass(frozen=True)
class FindingView:
    """A row of the findings: texts, and a bar from 0 to 100 percent with a tick at the limit."""

    title: str
    name: str
    meaning: str
    note: str
    value: str
    limit: str
    status: str
    margin: str
    fill: float | None
    tick: float | None


@dataclass(frozen=True)
class GroupView:
    """Findings of one subject: those held to a limit, and what was only measured."""

    title: str
    held: tuple[FindingView, ...]
    measured: tuple[FindingView, ...]


@dataclass(frozen=True)
class CardView:
    """A score card."""

    label: str
    value: str
    unit: str
    note: str
    status: str


def group_findings(findings: Sequence[Finding]) -> tuple[GroupView, ...]:
    """Findings by subject in their order, comparisons with a baseline last."""
    absolute = [finding for finding in findings if not finding.metric.endswith(_CHANGE)]
    changes = [finding for finding in findings if finding.metric.endswith(_CHANGE)]
    groups = []
    for subject in dict.fromkeys(finding.component for finding in absolute):
        rows = [view_of_finding(finding) for finding in absolute if finding.component == subject]
        groups.append(_group(_SUBJECTS.get(subject, subject), rows))
    if changes:
        groups.append(_group("Against the baseline", [view_of_finding(finding) for finding in changes]))
    return tuple(groups)


def score_cards(report: Report) -> tuple[CardView, ...]:
    """The few figures that a reader wants first, as far as they were measured."""
    found = {finding.name: finding for finding in report.findings}
    denoiser = next((str(f.denoiser) for f in FAMILIES if f.name == report.family), "unet")
    cards = []
    for label, name in (
        ("PSNR, mean", "pictures.psnr_db"),
        ("SSIM, mean", "pictures.ssim"),
        ("Denoiser SQNR", f"{denoiser}.sqnr_db"),
    ):
        finding = found.get(name)
        if finding is not None and finding.value is not None:
            view = view_of_finding(finding)
            note = f"limit {view.limit}" if view.limit else "no limit"
            cards.append(CardView(label, f"{finding.value:.3g}", finding.unit, note, view.status))
    judged = [row for row in report.pictures if row.result_wrong is not None]
    if judged:
        right = sum(not row.result_wrong for row in judged)
        original = sum(not row.original_wrong for row in judged)
        finding = found.get("pictures.attribute_accuracy")
        status = view_of_finding(finding).status if finding is not None else "measured"
        cards.insert(
            2,
            CardView("Shows what is asked", f"{right}", f"of {len(judged)}", f"original: {original}", status),
        )
    fp16_bytes = sum(row.fp16_bytes for row in report.sizes)
    weight_bytes = sum(row.bundle_bytes for row in report.sizes)
    if fp16_bytes:
        number, _, unit = megabytes(weight_bytes).partition(" ")
        note = f"{weight_bytes / fp16_bytes:.2f} of the size in fp16"
        cards.append(CardView("Weights", number, unit, note, "measured"))
    for timing in report.timings:
        if timing.name == "one picture":
            number, _, unit = duration(timing.seconds).partition(" ")
            cards.append(
                CardView(PICTURE_TIME, number, unit, report.environment.get("machine", ""), "measured")
            )
    return tuple(cards)


def _group(title: str, rows: Sequence[FindingView]) -> GroupView:
    measured = tuple(row for row in rows if row.status == "measured")
    return GroupView(title, tuple(row for row in rows if row.status != "measured"), measured)


def view_of_finding(finding: Finding) -> FindingView:
    """One row."""
    short = finding.metric.removesuffix(_CHANGE)
    metric = next((metric for metric in METRICS if metric.name == short), None)
    change = finding.metric != short
    title = metric.title if metric else short
    if change:
        title = f"{_SUBJECTS.get(finding.component, finding.component)}: {title}"
    sign = "≥" if finding.direction is Direction.AT_LEAST else "≤"
    fill, tick = (None, None) if change or metric is None else _bar(finding, metric)
    if finding.limit is None:
        status = "measured" if finding.passed else "broken"
    else:
        status = "kept" if finding.passed else "broken"
    interval = finding.interval
    note = finding.note
    if interval is not None:
        note = f"95 %: {interval[0]:.4g} to {interval[1]:.4g}" + (f"; {note}" if note else "")
    return FindingView(
        title=title,
        name=finding.name,
        meaning="new value less the baseline's" if change else metric.meaning if metric else "",
        note=note,
        value="not measured"
        if finding.value is None
        else (("+" if change and finding.value > 0 else "") + with_unit(finding.value, finding.unit)),
        limit="" if finding.limit is None else f"{sign} {with_unit(finding.limit, finding.unit)}",
        status=status,
        margin=_margin(finding),
        fill=fill,
        tick=tick,
    )


def _margin(finding: Finding) -> str:
    value, limit = finding.value, finding.limit
    if value is None or limit is None or not math.isfinite(value) or value == limit:
        return ""
    distance = f"{abs(value - limit):.2g} {finding.unit}".rstrip()
    return f"{distance} to spare" if finding.passed else f"{distance} too {_wrong_side(finding)}"


def _wrong_side(finding: Finding) -> str:
    return "low" if finding.direction is Direction.AT_LEAST else "high"


def _bar(finding: Finding, metric: Metric) -> tuple[float | None, float | None]:
    """Fill and tick in percent; cosines by how many dB they are from 1, since all of them are near it."""
    if metric.guard is not None or finding.value is None or not math.isfinite(finding.value):
        return None, None

    def place(value: float) -> float:
        return max(0.0, -10 * math.log10(max(1e-9, 1 - value)) if "cosine" in metric.name else value)

    value = place(finding.value)
    limit = None if finding.limit is None else place(finding.limit)
    bounded = metric.name in ("ssim", "worst_ssim", "attribute_accuracy")
    top = 1.0 if bounded else 1.25 * max(value, limit or 0.0)
    if top <= 0:
        return None, None
    return min(100.0, 100 * value / top), None if limit is None else min(100.0, 100 * limit / top)
