"""Gate: a bundle's folder in, a verdict and its report files out. What `latentc validate` does."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from latentc.errors import BundleError, UsageError
from latentc.runtime.bundle import LIMITS, verify_bundle
from latentc.runtime.manifest import Json
from latentc.validation.baseline import Baseline, baseline_to_json, read_baseline, updated, with_baseline
from latentc.validation.build_facts import facts_of_bundle
from latentc.validation.limits import limits_from_recipe
from latentc.validation.markdown import report_to_markdown
from latentc.validation.progress import Progress
from latentc.validation.reference import read_reference
from latentc.validation.report import Report
from latentc.validation.validate import validate
from latentc.validation.write_report import write_report, write_text

REFERENCE = "reference"


def validate_bundle(
    folder: Path,
    out: Path,
    *,
    baseline: Path | None = None,
    update_baseline: Path | None = None,
    summary: Path | None = None,
    threads: int = 0,
    progress: Progress = lambda fraction, what: None,
) -> Report:
    """Compare the bundle in ``folder`` with the reference that it carries.

    Args:
        folder: a bundle; every byte is checked first.
        out: receives report.json, junit.xml, report.html and the pictures.
        baseline: committed metric values that the bundle may not fall behind.
        update_baseline: receives this run's values beside those of other bundles.
        summary: a file to append a few lines of Markdown to, such as a CI job's summary.
        threads: of onnxruntime; 0 takes one a core.
        progress: told about what is being done.

    Raises:
        BundleError: the bundle, its reference or its limits are damaged.
        UsageError: the baseline cannot be read or written, or ``out`` lies inside the bundle.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(str(out), "lies inside the bundle", "choose a folder beside it with --report DIR")
    bundle = verify_bundle(folder)
    if not bundle.manifest.is_validated:
        raise BundleError(
            str(folder),
            "carries no pictures of the original: its recipe has validation.count 0",
            "build it with a larger count where the original can run; the rest comes from the store",
        )
    limits = limits_from_recipe(read_limits(folder), bundle.family)
    known = None if baseline is None else read_baseline(baseline)
    out.mkdir(parents=True, exist_ok=True)
    report = validate(
        bundle,
        read_reference(bundle.folder / REFERENCE),
        limits,
        out,
        build=facts_of_bundle(bundle.folder / REFERENCE, bundle.family),
        threads=threads,
        progress=progress,
    )
    if known is not None:
        report = with_baseline(report, known, limits, str(baseline))
    if update_baseline is not None:
        before = read_baseline(update_baseline) if update_baseline.exists() else Baseline({})
        write_text(update_baseline, baseline_to_json(updated(before, report)))
    write_report(report, out)
    if summary is not None:
        with summary.open("a", encoding="utf-8") as lines:
            lines.write(report_to_markdown(report) + os.linesep)
    return report


def read_limits(folder: Path) -> Mapping[str, float]:
    """The limits that lie in a bundle's folder; none when there is no such file.

    Raises:
        BundleError: the file is not a mapping of metric names to finite numbers.
    """
    path = folder / LIMITS
    if not path.exists():
        return {}
    fix = 'write {"pictures.psnr_db": 20} for example'
    try:
        data: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(str(path), f"cannot be read: {error}", fix) from error
    if not isinstance(data, dict):
        raise BundleError(str(path), f"holds a {type(data).__name__}, wanted a mapping", fix)
    limits: dict[str, float] = {}
    for name, value in data.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BundleError(f"{path}: {name}", f"is {value!r}, wanted a finite number", fix)
        limits[name] = float(value)
    return limits


def limits_to_json(limits: Mapping[str, float]) -> str:
    """Canonical text of ``limits``, as ``read_limits`` reads it."""
    return json.dumps(dict(limits), indent=2, sort_keys=True, allow_nan=False) + "\n"
