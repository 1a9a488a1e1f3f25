"""The bundle's own self-test: golden inputs through every component, outputs against golden outputs.

``reference/<component>.npz`` holds ``input.<name>`` and ``output.<name>`` arrays in float32 or int64;
``reference/selftest.json`` maps each component to its limit, ``{"unet": {"relative_error": 0.05}}``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentc.errors import BundleError, GateFailed
from latentc.recipes.family import Component
from latentc.runtime.bundle import Bundle, component_named
from latentc.runtime.session import Array, open_session

REFERENCE = "reference"
LIMITS = f"{REFERENCE}/selftest.json"


@dataclass(frozen=True)
class SelfTestFinding:
    """One output of one component.

    Args:
        component: which.
        output: its name.
        relative_error: ‖result - golden‖ / ‖golden‖, 0 and up; infinity when the result holds NaN.
        limit: the largest error that passes.
    """

    component: Component
    output: str
    relative_error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit."""
        return self.relative_error <= self.limit

    @property
    def words(self) -> str:
        """One line for people."""
        return f"{self.component}.{self.output} is off by {self.relative_error:.3g}, limit {self.limit:.3g}"


def write_golden(
    folder: Path, component: Component, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Path:
    """Write the golden arrays of ``component`` into the bundle ``folder``; same arrays, same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / REFERENCE / f"{component}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    arrays.update({f"output.{name}": array for name, array in outputs.items()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            # A member's default time is 1980, so the archive's bytes depend on the arrays alone.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)
    return path


def write_limits(folder: Path, relative_errors: Mapping[Component, float]) -> Path:
    """Write the largest relative error that passes, by component, into the bundle ``folder``."""
    path = folder / LIMITS
    path.parent.mkdir(parents=True, exist_ok=True)
    limits = {str(component): {"relative_error": limit} for component, limit in relative_errors.items()}
    path.write_text(json.dumps(limits, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def run_selftest(
    bundle: Bundle,
    components: Iterable[Component] | None = None,
    *,
    threads: int = 0,
    stand_in: bool = False,
) -> tuple[SelfTestFinding, ...]:
    """Run the golden inputs through ``components``, one at a time; None takes all that have limits.

    Raises:
        BundleError: there is no self-test, or it does not fit the bundle.
        TargetError: this machine cannot run the bundle.
    """
    limits = _read_limits(bundle)
    findings: list[SelfTestFinding] = []
    for component in limits if components is None else components:
        if component not in limits:
            raise BundleError(LIMITS, f"has no limit for {component}", "build the bundle again")
        arrays = _read_golden(bundle, component)
        inputs = _named(arrays, "input.")
        with open_session(bundle, component, threads=threads, stand_in=stand_in) as session:
            results = session.run(inputs)
        for name, golden in _named(arrays, "output.").items():
            if name not in results or results[name].shape != golden.shape:
                seen = list(results[name].shape) if name in results else "nothing of that name"
                raise BundleError(
                    f"{component}",
                    f"gives {seen} for output '{name}', the self-test has {list(golden.shape)}",
                    "build the bundle again",
                )
            error = relative_error(results[name], golden)
            findings.append(SelfTestFinding(component, name, error, limits[component]))
    return tuple(findings)


def require_passed(findings: Iterable[SelfTestFinding]) -> None:
    """Raise GateFailed when a finding is over its limit; an empty self-test fails as well."""
    seen = list(findings)
    broken = [finding for finding in seen if not finding.passed]
    if broken or not seen:
        words = "; ".join(finding.words for finding in broken)
        raise GateFailed(
            "self-test",
            words or "compared nothing",
            "build the engine again; if it stays, the device's kernels disagree with the reference",
        )


def relative_error(result: NDArray[np.float32], golden: NDArray[np.float32]) -> float:
    """‖result - golden‖ / ‖golden‖ in float64; infinity for NaN, or for any difference from zeros."""
    if not bool(np.isfinite(result).all()):
        return float("inf")
    difference = float(np.linalg.norm(result.astype(np.float64) - golden.astype(np.float64)))
    size = float(np.linalg.norm(golden.astype(np.float64)))
    if size == 0.0:
        return 0.0 if difference == 0.0 else float("inf")
    return difference / size


def _read_limits(bundle: Bundle) -> dict[Component, float]:
    try:
        data = json.loads(bundle.checked_bytes(LIMITS))
        return {component_named(name): float(limit["relative_error"]) for name, limit in data.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(LIMITS, f"is no table of limits: {error}", "build the bundle again") from error


def _read_golden(bundle: Bundle, component: Component) -> dict[str, Array]:
    name = f"{REFERENCE}/{component}.npz"
    try:
        with np.load(io.BytesIO(bundle.checked_bytes(name)), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise BundleError(name, f"cannot be read: {error}", "build the bundle again") from error


def _named(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
