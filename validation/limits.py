"""Limits: what the gate holds a bundle to, as data. A recipe's ``validation.limits`` becomes this once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from latentc.errors import RecipeError, nearest
from latentc.recipes.families.catalogue import FAMILIES
from latentc.recipes.family import Family
from latentc.validation.metric import Level, Metric, metrics_of

MetricName: TypeAlias = "tuple[str, str]"
"""Subject and metric, such as ("unet", "sqnr_db")."""

_DENOISER = "denoiser"


@dataclass(frozen=True)
class Limits:
    """Every metric that a family has, and the limits on some of them.

    Args:
        metrics: by subject and name, in the report's order.
        values: limits by the same; which side of it is good is the metric's own direction.
        asked: the metrics that the recipe itself limits: one of them that cannot be measured fails.
    """

    metrics: Mapping[MetricName, Metric]
    values: Mapping[MetricName, float]
    asked: frozenset[MetricName] = frozenset()

    def limit(self, subject: str, name: str) -> float | None:
        """The limit on a metric, or None when it is only reported."""
        return self.values.get((subject, name))


def limits_from_recipe(limits: Mapping[str, float], family: Family) -> Limits:
    """Limits of a recipe, with the guards that always hold (nothing NaN, no blank picture).

    Args:
        limits: full metric name to limit, such as ``unet.sqnr_db: 18``; ``denoiser`` names the family's own.
        family: says which components there are.

    Raises:
        RecipeError: a metric does not exist, is limited twice, or its limit is not a finite number.
    """
    metrics: dict[MetricName, Metric] = {
        (str(spec.component), metric.name): metric
        for spec in family.components
        for metric in metrics_of(Level.COMPONENT)
    }
    for level in (Level.TRAJECTORY, Level.PICTURES):
        metrics |= {(str(level), metric.name): metric for metric in metrics_of(level)}
    values = {key: metric.guard for key, metric in metrics.items() if metric.guard is not None}
    seen: dict[MetricName, str] = {}
    for text, value in limits.items():
        subject, _, name = text.rpartition(".")
        key = (str(family.denoiser) if subject == _DENOISER else subject, name)
        where = f"validation.limits.{text}"
        if key not in metrics:
            offered = [".".join(key) for key in metrics]
            wrong_family = subject in {str(other.denoiser) for other in FAMILIES}
            meant = f"{family.denoiser}.{name}" if wrong_family else text
            raise RecipeError(where, f"there is no metric '{text}' in {family.name}", nearest(meant, offered))
        if key in seen:
            raise RecipeError(where, f"is the same metric as '{seen[key]}'", "remove one of them")
        if not math.isfinite(value):
            raise RecipeError(
                where, f"is {value}, expected a finite number", "remove it to leave it unlimited"
            )
        seen[key] = text
        values[key] = float(value)
    return Limits(metrics, values, frozenset(seen))
