"""Plan: the compiler, readable top to bottom. Pure: no stage runs, no torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

from latentc.compiler.stage import Step


@dataclass(frozen=True)
class Plan:
    """Steps in an order in which each follows its inputs.

    Args:
        name: under which the store remembers the keys, to say later why a step is stale.
        steps: labels are unique.
    """

    name: str
    steps: tuple[Step, ...]
