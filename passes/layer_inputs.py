"""Layer inputs: what the linears of a graph multiply, as second moments, found once for several passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from latentc.passes.base import PassContext
from latentc.passes.calibration import inner_values, is_record_held_out, read_samples
from latentc.passes.moments import Moments, MomentSums
from latentc.passes.weights import Linear, name_of


def moments_of(
    pass_name: str, model: ir.Model, linears: Sequence[Linear], context: PassContext
) -> dict[str, Moments]:
    """By weight: the moments of what ``linears`` multiply it with.

    Kept in ``context`` by the value's name until a pass changes the function of the graph.

    Raises:
        PassError: there is no calibration, or it is none of this graph.
    """
    read = {
        linear.name: [name_of(node.inputs[0]) for node in linear.nodes if node.inputs[0] is not None]
        for linear in linears
    }
    missing = sorted({name for names in read.values() for name in names} - context.moments.keys())
    if missing:
        samples = read_samples(pass_name, context.calibration, model)
        fit, held_out = MomentSums(), MomentSums()
        for number, values in enumerate(inner_values(model, missing, samples)):
            (held_out if is_record_held_out(number) else fit).add(values)
        fitted = fit.averages()
        judged = held_out.averages() or fitted  # too few records to hold one out
        for name in missing:
            context.moments[name] = Moments(fitted[name], judged[name])
    return {weight: _mean([context.moments[name] for name in names]) for weight, names in read.items()}


def _mean(several: Sequence[Moments]) -> Moments:
    if len(several) == 1:
        return several[0]
    return Moments(
        np.mean([one.fit for one in several], axis=0, dtype=np.float32),
        np.mean([one.held_out for one in several], axis=0, dtype=np.float32),
    )
