"""What is foretold for a linear is what the passes then make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.passes.graphs import model_of, relative_error, run_model
from tests.passes.test_split_subspace import uneven_rows

from latentc.passes.allocate import Allocate
from latentc.passes.allotment import allotment_from_text
from latentc.passes.base import Pass, PassContext
from latentc.passes.low_rank import BranchType
from latentc.passes.quantize_activations import QuantizeActivations
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.quantize_int8_weights import QuantizeInt8Weights
from latentc.passes.rounding import Rounding
from latentc.passes.sequence import run_passes
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.split_subspace import SplitSubspace
from latentc.passes.stored_loss import StoredLoss

LINEAR = "g (float[B,64] x) => (float[B,64] y) <float[64,64] w> { y = MatMul (x, w) }"


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("text", ["float", "int8", "int4", "int4+8", "int4@8", "int4@8+4"])
def test_what_is_foretold_comes(text: str, bits: int, tmp_path: Path, seed: int) -> None:
    rows = [uneven_rows(seed + number) for number in range(4)]
    for number in range(3):
        np.savez(tmp_path / f"{number:04d}.npz", x=rows[number])
    context = PassContext(calibration=tmp_path)
    model = model_of(LINEAR)
    passes: list[Pass] = [
        Allocate(plan=(f"w={text}",)),
        SplitSubspace(optional=True),
        SplitLowRank(refinements=2, optional=True),
        QuantizeInt8Weights(optional=True),
        QuantizeInt4(optional=True),
    ]
    if bits < 16:
        passes.append(QuantizeActivations(bits=bits, optional=True))
    after, _ = run_passes(model, passes, context)
    wanted = run_model(model, tmp_path / "before", {"x": rows[3]})
    seen = run_model(after, tmp_path / "after", {"x": rows[3]})
    came = relative_error(seen[0], wanted[0])
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    fit = np.concatenate([rows[0], rows[1]])
    moments = fit.T @ fit / np.float32(400)
    loss = StoredLoss(64, BranchType.INT8, Rounding.NEAREST, weight.numpy(), moments, rows[3], bits)
    foretold = loss.of(allotment_from_text(text, "w"))
    assert came == pytest.approx(foretold, rel=0.05, abs=1e-6)
