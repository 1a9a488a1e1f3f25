"""Measured: the values that a comparison gathers, before they meet their limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentc.validation.finding import Finding
from latentc.validation.limits import Limits, MetricName
from latentc.validation.report import Timing


@dataclass
class Measured:
    """What one run of the ladder came to; each rung adds its own.

    Args:
        values: by subject and metric.
        intervals: of those values that are means over prompts.
        missing: why metrics were not measured, by subject or ``<subject>.<name>``; no harm unless the recipe
            limits one of them.
        failed: what went wrong on a rung, by subject; its guards count as broken.
        notes: whole sentences for the report.
        timings: of the work done.
    """

    values: dict[MetricName, float] = field(default_factory=dict)
    intervals: dict[MetricName, tuple[float, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)

    def findings(self, limits: Limits) -> tuple[Finding, ...]:
        """Every measured value against its limit, and every broken promise to measure one."""
        rows = []
        for key, metric in limits.metrics.items():
            subject, name = key
            broken = subject in self.failed and metric.guard is not None
            if key not in self.values and key not in limits.asked and not broken:
                continue
            why = self.failed.get(subject) or self.missing.get(
                f"{subject}.{name}", self.missing.get(subject, "nothing measures it here")
            )
            rows.append(
                Finding(
                    component=subject,
                    metric=name,
                    value=self.values.get(key),
                    limit=limits.limit(subject, name),
                    unit=metric.unit,
                    direction=metric.direction,
                    note="" if key in self.values else why,
                    interval=self.intervals.get(key),
                )
            )
        return tuple(rows)
