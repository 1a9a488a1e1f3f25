"""First rung: each component of a bundle alone, on golden inputs of the original."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

import numpy as np

from latentc.errors import BundleError
from latentc.recipes.family import Component, Family
from latentc.runtime.pipeline import Pipeline
from latentc.runtime.session import Array
from latentc.validation.measured import Measured
from latentc.validation.progress import Clock, Progress
from latentc.validation.reference import GoldenTensors, Reference
from latentc.validation.report import Timing
from latentc.validation.tensor_metrics import cosine, count_not_finite, relative_error, sqnr_db


def compare_components(
    pipeline: Pipeline,
    reference: Reference,
    family: Family,
    measured: Measured,
    *,
    clock: Clock,
    progress: Progress,
) -> None:
    """Add every component's figures to ``measured``; what cannot be compared becomes a note.

    Raises:
        BundleError: the golden tensors do not fit the graph.
        TargetError: the runtime fails.
    """
    golden = reference.components()
    held = [Component(name) for name in pipeline.manifest.components]
    for component in (spec.component for spec in family.components):
        if component in held and component in golden:
            continue
        if component in held:
            why = "has no golden tensors in the reference"
        elif component in golden:
            why = "is not in the bundle"
        else:
            continue
        measured.missing[str(component)] = f"{component} {why}"
        measured.notes.append(f"{component} {why}, so it was not compared on its own.")
    compared = [component for component in golden if component in held]
    for number, component in enumerate(compared):
        progress(number / len(compared), f"comparing {component}")
        _compare(pipeline, component, reference.golden(component), family, measured, clock)
    progress(1.0, "compared the components")


def _compare(
    pipeline: Pipeline,
    component: Component,
    golden: GoldenTensors,
    family: Family,
    measured: Measured,
    clock: Clock,
) -> None:
    samples = samples_of(component, golden, family)
    session = pipeline.session(component)
    unknown = sorted(set(golden.outputs) - set(session.output_names))
    if unknown:
        raise BundleError(
            str(component),
            f"has the outputs {', '.join(session.output_names)}, the reference has {', '.join(unknown)}",
            "build the reference again",
        )
    session.run(samples[0])  # the first run of a session also plans its memory; it is not timed
    results: dict[str, list[Array]] = {name: [] for name in golden.outputs}
    seconds = []
    for sample in samples:
        started = clock()
        outputs = session.run(sample)
        seconds.append(clock() - started)
        for name, rows in results.items():
            rows.append(outputs[name])
    measured.timings.append(Timing(str(component), median(seconds), len(samples)))
    subject = str(component)
    actual = {name: np.concatenate(rows) for name, rows in results.items()}
    for name, array in actual.items():
        if array.shape != golden.outputs[name].shape:
            raise BundleError(
                f"{component}.{name}",
                f"has shape {list(array.shape)}, the reference has {list(golden.outputs[name].shape)}",
                "build the reference again",
            )
    flat_actual = np.concatenate([actual[name].ravel() for name in sorted(actual)])
    flat_golden = np.concatenate([golden.outputs[name].ravel() for name in sorted(actual)])
    measured.values |= {
        (subject, "sqnr_db"): sqnr_db(flat_actual, flat_golden),
        (subject, "worst_sqnr_db"): lowest(
            [
                sqnr_db(mine, theirs)
                for name in actual
                for mine, theirs in zip(actual[name], golden.outputs[name], strict=True)
            ]
        ),
        (subject, "relative_error"): relative_error(flat_actual, flat_golden),
        (subject, "cosine"): cosine(flat_actual, flat_golden),
        (subject, "not_finite"): float(count_not_finite(flat_actual)),
    }


def lowest(values: list[float]) -> float:
    """The lowest value, or NaN when there is one: min() would step over it."""
    return float(np.min(np.asarray(values)))


def samples_of(component: Component, golden: GoldenTensors, family: Family) -> list[Mapping[str, Array]]:
    """The golden inputs one sample at a time, B = 1, as a device runs them."""
    axes = {tensor.name: tensor.axes for tensor in family.spec(component).inputs}
    stacked = {name: array for name, array in golden.inputs.items() if axes.get(name, ("B",))[0] == "B"}
    fixed = {name: array for name, array in golden.inputs.items() if name not in stacked}
    rows = {len(array) for array in [*stacked.values(), *golden.outputs.values()]}
    if len(rows) != 1 or 0 in rows:
        raise BundleError(
            f"components/{component}.npz",
            f"has tensors of {', '.join(map(str, sorted(rows)))} samples, expected as many of each",
            "build the reference again",
        )
    return [
        {**fixed, **{name: array[index : index + 1] for name, array in stacked.items()}}
        for index in range(rows.pop())
    ]
