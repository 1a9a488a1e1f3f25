"""What the HTML report shows, laid out: every text and every percent that the template only has to place."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from latentc.validation.bytes_view import BytesView, budget_noun, bytes_views
from latentc.validation.embedded_picture import HEAT_LEVELS, heat_gradient
from latentc.validation.finding_view import CardView, GroupView, group_findings, score_cards
from latentc.validation.line_chart import Line, LineChart, line_chart
from latentc.validation.picture_view import PairView, Strip, spread, strip_of_psnrs, view_of_pair
from latentc.validation.report import Report
from latentc.validation.table_view import (
    BarView,
    SizeView,
    TrialTable,
    layer_bars,
    refusal_groups,
    size_bars,
    trial_tables,
)

CONTACT_PAIRS = 6
"""How many pairs the page's head shows."""


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
    bytes: tuple[BytesView, ...]
    budget: str
    layers: tuple[BarView, ...]
    sizes: tuple[SizeView, ...]
    refusals: tuple[tuple[str, tuple[str, ...]], ...]
    trials: tuple[TrialTable, ...]
    heat_gradient: str
    heat_levels: int
    recipe_text: str


def view_of_report(report: Report, folder: Path) -> View:
    """Lay out ``report``, whose pictures lie in ``folder``; raises UsageError when one cannot be read."""
    rows = sorted(report.pictures, key=lambda row: (row.psnr_db, row.index))
    pairs = tuple(view_of_pair(row, folder) for row in rows)
    return View(
        report=report,
        verdict=report.verdict().partition(": ")[2],
        cards=score_cards(report),
        groups=group_findings(report.findings),
        failures=tuple(finding.sentence() for finding in report.failures),
        contact=spread(pairs, CONTACT_PAIRS),
        pairs=pairs,
        terms=_terms(report),
        strip=strip_of_psnrs([row.psnr_db for row in rows if math.isfinite(row.psnr_db)]),
        chart=line_chart(
            [
                Line("worst", "worst", tuple(row.worst_relative_error for row in report.steps)),
                Line("mean", "mean", tuple(row.relative_error for row in report.steps)),
            ],
            first=report.steps[0].step if report.steps else 0,
        ),
        bytes=bytes_views(report),
        budget=budget_noun(report),
        layers=layer_bars(report.build.layers),
        sizes=size_bars(report.sizes),
        refusals=refusal_groups(report.build.refusals),
        trials=trial_tables(report.build.trials),
        heat_gradient=heat_gradient(),
        heat_levels=HEAT_LEVELS,
        recipe_text=json.dumps(report.resolved_recipe, indent=2, ensure_ascii=False),
    )


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
