"""What the HTML report shows, laid out: every text and every percent that the template only has to place."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentc.recipes.family import FAMILIES
from latentc.runtime.picture import load_picture
from latentc.validation.embedded_picture import HEAT_LEVELS, data_uri, heat_gradient, heat_map
from latentc.validation.finding import Finding, with_unit
from latentc.validation.line_chart import Line, LineChart, Tick, line_chart, nice_step
from latentc.validation.metric import METRICS, Direction, Metric
from latentc.validation.report import LayerRow, PictureRow, Report, SizeRow

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
class Strip:
    """A scale of PSNR with one mark a prompt; everything in percent of its length."""

    marks: tuple[float, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class View:
    """The whole page."""

    report: Report
    verdict: str
    cards: tuple[CardView, ...]
    groups: tuple[GroupView, ...]
    failures: tuple[str, ...]
    contact: tuple[PairView, ...]
    pairs: tuple[PairView, ...]
    terms: str
    strip: Strip | None
    chart: LineChart | None
    layers: tuple[BarView, ...]
    sizes: tuple[SizeView, ...]
    refusals: tuple[tuple[str, tuple[str, ...]], ...]
    heat_gradient: str
    heat_levels: int
    recipe_text: str


def view_of_report(report: Report, folder: Path) -> View:
    """Lay out ``report``, whose pictures lie in ``folder``; raises UsageError when one cannot be read."""
    rows = sorted(report.pictures, key=lambda row: (row.psnr_db, row.index))
    pairs = tuple(_pair(row, folder) for row in rows)
    return View(
        report=report,
        verdict=report.verdict().partition(": ")[2],
        cards=_cards(report),
        groups=_groups(report.findings),
        failures=tuple(finding.sentence() for finding in report.failures),
        contact=_spread(pairs, 6),
        pairs=pairs,
        terms=_terms(report),
        strip=_strip([row.psnr_db for row in rows if math.isfinite(row.psnr_db)]),
        chart=line_chart(
            [
                Line("worst prompt", "worst", tuple(row.worst_relative_error for row in report.steps)),
                Line("mean", "mean", tuple(row.relative_error for row in report.steps)),
            ],
            first=report.steps[0].step if report.steps else 0,
        ),
        layers=_layers(report.build.layers),
        sizes=_sizes(report.sizes),
        refusals=_refusals(report),
        heat_gradient=heat_gradient(),
        heat_levels=HEAT_LEVELS,
        recipe_text=json.dumps(report.resolved_recipe, indent=2, ensure_ascii=False),
    )


def megabytes(size_bytes: int) -> str:
    """Bytes as MB (10⁶), three digits."""
    return f"{size_bytes / 1e6:.3g} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.1 else f"{seconds:.3g} s"


def _terms(report: Report) -> str:
    """Under which terms both sides drew: 'stable-diffusion, DDIMScheduler, 20 steps, …'."""
    sampling = report.sampling
    terms = [report.family, report.scheduler]
    if "steps" in sampling:
        terms.append(f"{sampling['steps']:g} steps")
    if "guidance" in sampling:
        terms.append(f"guidance {sampling['guidance']:g}")
    if "width" in sampling and "height" in sampling:
        terms.append(f"{sampling['width']:g}×{sampling['height']:g} pixels")
    if report.pictures:
        terms.append(f"{len(report.pictures)} prompts")
    return ", ".join(term for term in terms if term)


def _strip(psnrs: Sequence[float]) -> Strip | None:
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


def _groups(findings: Sequence[Finding]) -> tuple[GroupView, ...]:
    absolute = [finding for finding in findings if not finding.metric.endswith(_CHANGE)]
    changes = [finding for finding in findings if finding.metric.endswith(_CHANGE)]
    groups = []
    for subject in dict.fromkeys(finding.component for finding in absolute):
        rows = [_finding(finding) for finding in absolute if finding.component == subject]
        groups.append(_group(_SUBJECTS.get(subject, subject), rows))
    if changes:
        groups.append(_group("Against the baseline", [_finding(finding) for finding in changes]))
    return tuple(groups)


def _group(title: str, rows: Sequence[FindingView]) -> GroupView:
    measured = tuple(row for row in rows if row.status == "measured")
    return GroupView(title, tuple(row for row in rows if row.status != "measured"), measured)


def _finding(finding: Finding) -> FindingView:
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
        return -10 * math.log10(max(1e-9, 1 - value)) if "cosine" in metric.name else max(0.0, value)

    value = place(finding.value)
    limit = None if finding.limit is None else place(finding.limit)
    bounded = metric.name in ("ssim", "worst_ssim", "attribute_accuracy")
    top = 1.0 if bounded else 1.25 * max(value, limit or 0.0)
    if top <= 0:
        return None, None
    return min(100.0, 100 * value / top), None if limit is None else min(100.0, 100 * limit / top)


def _cards(report: Report) -> tuple[CardView, ...]:
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
            view = _finding(finding)
            note = f"limit {view.limit}" if view.limit else "no limit"
            cards.append(CardView(label, f"{finding.value:.3g}", finding.unit, note, view.status))
    judged = [row for row in report.pictures if row.result_wrong is not None]
    if judged:
        right = sum(not row.result_wrong for row in judged)
        original = sum(not row.original_wrong for row in judged)
        finding = found.get("pictures.attribute_accuracy")
        status = _finding(finding).status if finding is not None else "measured"
        cards.insert(
            2,
            CardView("Shows what is asked", f"{right}", f"of {len(judged)}", f"original: {original}", status),
        )
    fp16_bytes = sum(row.fp16_bytes for row in report.sizes)
    weight_bytes = sum(row.bundle_bytes for row in report.sizes)
    if fp16_bytes:
        number, _, unit = megabytes(weight_bytes).partition(" ")
        note = f"{weight_bytes / fp16_bytes:.2f} of fp16's {megabytes(fp16_bytes)}"
        cards.append(CardView("Weights", number, unit, note, "measured"))
    for timing in report.timings:
        if timing.name == "one picture":
            number, _, unit = duration(timing.seconds).partition(" ")
            cards.append(
                CardView("One picture", number, unit, report.environment.get("machine", ""), "measured")
            )
    return tuple(cards)


def _pair(row: PictureRow, folder: Path) -> PairView:
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
    if row.original_wrong:
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


def _spread(pairs: Sequence[PairView], count: int) -> tuple[PairView, ...]:
    """``count`` pairs from the worst to the best, evenly spread."""
    if len(pairs) <= count:
        return tuple(pairs)
    return tuple(pairs[round(n * (len(pairs) - 1) / (count - 1))] for n in range(count))


def _layers(layers: Sequence[LayerRow]) -> tuple[BarView, ...]:
    finite = [row for row in layers if math.isfinite(row.relative_error)]
    top = max((row.relative_error for row in finite), default=0.0) or 1.0
    strange = [row for row in layers if not math.isfinite(row.relative_error)]
    ordered = strange + sorted(finite, key=lambda row: (-row.relative_error, row.component, row.layer))
    return tuple(
        BarView(
            f"{row.component}/{row.layer.removesuffix('.weight')}",
            row.pass_name,
            f"{100 * row.relative_error:.3g} %" if math.isfinite(row.relative_error) else "not finite",
            100 * row.relative_error / top if math.isfinite(row.relative_error) else 100.0,
        )
        for row in ordered
    )


def _sizes(sizes: Sequence[SizeRow]) -> tuple[SizeView, ...]:
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


def _refusals(report: Report) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Reasons, the most frequent first, each with the places it was given for."""
    counts = Counter((row.pass_name, row.why) for row in report.build.refusals)
    return tuple(
        (
            f"{name}: {why}",
            tuple(
                f"{row.component}/{row.where}"
                for row in report.build.refusals
                if (row.pass_name, row.why) == (name, why)
            ),
        )
        for (name, why), _ in counts.most_common()
    )
