"""What linears multiply: fitted to two records of three, judged by one, found once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.graphs import inputs_of, model_of

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.layer_inputs import moments_of
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.sequence import run_passes
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.weights import Linear, find_linears

GRAPH = """g (float[B,T,128] x) => (float[B,T,64] y) <float[128,64] w> { y = MatMul (x, w) }"""


def recorded(folder: Path, model: ir.Model, count: int) -> list[np.ndarray]:
    """Write ``count`` records and return the rows [T, 128] of each."""
    samples = [inputs_of(model, {"B": 1, "T": 40}, number) for number in range(count)]
    for number, sample in enumerate(samples):
        np.savez(folder / f"{number:04d}.npz", **sample)  # type: ignore[arg-type] # numpy's stubs
    return [sample["x"][0].astype(np.float64) for sample in samples]


def linears(model: ir.Model) -> list[Linear]:
    return list(find_linears(model.graph))


def average(rows: list[np.ndarray]) -> np.ndarray:
    together = np.concatenate(rows)
    return np.asarray(together.T @ together / len(together))


def test_one_record_of_three_is_held_out(tmp_path: Path) -> None:
    model = model_of(GRAPH)
    rows = recorded(tmp_path, model, 7)
    found = moments_of("some-pass", model, linears(model), PassContext(calibration=tmp_path))["w"]
    np.testing.assert_allclose(found.fit, average([rows[i] for i in (0, 1, 3, 5)]), atol=1e-4)
    np.testing.assert_allclose(found.held_out, average([rows[i] for i in (2, 4, 6)]), atol=1e-4)


def test_a_single_record_serves_for_both(tmp_path: Path) -> None:
    model = model_of(GRAPH)
    recorded(tmp_path, model, 1)
    found = moments_of("some-pass", model, linears(model), PassContext(calibration=tmp_path))["w"]
    np.testing.assert_array_equal(found.fit, found.held_out)


def test_found_once_until_a_pass_changes_the_function(tmp_path: Path) -> None:
    model = model_of(GRAPH)
    recorded(tmp_path, model, 3)
    context = PassContext(calibration=tmp_path)
    kept = moments_of("some-pass", model, linears(model), context)["w"]
    split, _ = run_passes(model, [SplitLowRank(rank=8, max_ratio=0.4)], context)
    assert moments_of("some-pass", split, linears(split), context)["w"] is kept
    run_passes(split, [QuantizeInt4()], context)
    assert context.moments == {}


def test_no_calibration() -> None:
    model = model_of(GRAPH)
    with pytest.raises(PassError) as caught:
        moments_of("some-pass", model, linears(model), PassContext())
    assert str(caught.value) == (
        "some-pass: needs calibration data, and there is none\nfix: give the recipe a calibration"
    )
