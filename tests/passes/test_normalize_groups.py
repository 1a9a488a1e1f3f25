from pathlib import Path

import numpy as np
import pytest
from tests.passes.graphs import inputs_of, model_of, run_model

from latentc.passes.base import PassContext
from latentc.passes.normalize_groups import NormalizeGroups

GRAPH = """g (float[B,8,h,w] x) => (float[B,8,h,w] y) <float[8] scale, float[8] bias> {
    y = GroupNormalization <num_groups = 4, epsilon = 0.001> (x, scale, bias) }"""


# an autoencoder normalizes what its attention reads as [B, C, pixels]
@pytest.mark.parametrize("sides", ["h,w", "h"])
def test_the_numbers_stay(sides: str, tmp_path: Path) -> None:
    model = model_of(GRAPH.replace("h,w", sides))
    feeds = inputs_of(model, {"B": 2, "h": 5, "w": 6}, seed=1)
    result = NormalizeGroups()(model, PassContext())
    (wanted,) = (y.astype(np.float32) for y in run_model(model, tmp_path / "before", feeds))
    (seen,) = (y.astype(np.float32) for y in run_model(result.model, tmp_path / "after", feeds))
    # means and variances of 60 numbers in float32, summed in another order
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


def test_a_second_run_changes_nothing() -> None:
    once = NormalizeGroups()(model_of(GRAPH), PassContext()).model
    assert NormalizeGroups(optional=True)(once, PassContext()).changes == ()
