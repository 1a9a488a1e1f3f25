"""Validate: the packed bundle against the reference, by the recipe's limits; the report is the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from latentc.compiler.stage import Progress, Stage
from latentc.compiler.toolchain import versions
from latentc.runtime.manifest import Json


@dataclass(frozen=True)
class Validate(Stage):
    """Judge a bundle; a broken limit is a result like any other, kept and shown again.

    Args:
        limits: full metric name to limit, as in the recipe.
    """

    name: ClassVar[str] = "validate"
    version: ClassVar[int] = 2

    limits: tuple[tuple[str, float], ...]

    def options(self) -> dict[str, Json]:
        """The limits, and what computes the figures and draws the page."""
        return {"limits": dict(self.limits), "toolchain": dict(versions("onnxruntime", "numpy", "jinja2"))}

    def run(self, inputs: Mapping[str, Path], out: Path, progress: Progress) -> None:
        """Read ``inputs["pack"]``, a bundle that carries its reference; write the report into ``out``.

        Raises:
            BundleError: the bundle is damaged.
            RecipeError: a limit names no metric.
        """
        from latentc.runtime.bundle import verify_bundle
        from latentc.validation.build_facts import facts_of_bundle
        from latentc.validation.gate import REFERENCE
        from latentc.validation.limits import limits_from_recipe
        from latentc.validation.reference import read_reference
        from latentc.validation.validate import validate
        from latentc.validation.write_report import write_report

        bundle = verify_bundle(inputs["pack"])
        reference = bundle.folder / REFERENCE
        report = validate(
            bundle,
            read_reference(reference),
            limits_from_recipe(dict(self.limits), bundle.family),
            out,
            build=facts_of_bundle(reference, bundle.family),
            progress=progress,
        )
        write_report(report, out)
