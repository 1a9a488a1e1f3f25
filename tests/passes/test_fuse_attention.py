from pathlib import Path

import numpy as np
from tests.passes.graphs import inputs_of, model_of, run_model
from tests.passes.test_golden import GOLDEN, sections

from latentc.passes.base import PassContext
from latentc.passes.fuse_attention import FuseAttention

GRAPH = sections((GOLDEN / "fuse-attention" / "attention.txt").read_text())["before"]


def test_the_numbers_stay(tmp_path: Path) -> None:
    model = model_of(GRAPH)
    feeds = inputs_of(model, {"B": 2, "h": 24, "T": 7}, seed=1)
    result = FuseAttention()(model, PassContext())
    assert [node.op_type for node in result.model.graph][-1] == "MultiHeadAttention"
    (wanted,) = (y.astype(np.float32) for y in run_model(model, tmp_path / "before", feeds))
    (seen,) = (y.astype(np.float32) for y in run_model(result.model, tmp_path / "after", feeds))
    # the same sums in float32, in another order
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-6 * float(np.abs(wanted).max()))


def test_a_second_run_changes_nothing() -> None:
    once = FuseAttention()(model_of(GRAPH), PassContext()).model
    assert FuseAttention(optional=True)(once, PassContext()).changes == ()


def test_values_may_come_from_two_sources_joined(tmp_path: Path) -> None:
    text = GRAPH.replace(
        "v4 = Reshape (v, cut)", "v0 = Reshape (v, cut)\n    v4 = Concat <axis = 1> (v0, k4)"
    )
    text = text.replace(
        "kh = Transpose <perm = [0, 2, 1, 3]> (k4)",
        "kk = Concat <axis = 1> (k4, k4)\n    kh = Transpose <perm = [0, 2, 1, 3]> (kk)",
    )
    model = model_of(text)
    feeds = inputs_of(model, {"B": 1, "h": 5, "T": 3}, seed=2)
    result = FuseAttention()(model, PassContext())
    (wanted,) = (y.astype(np.float32) for y in run_model(model, tmp_path / "before", feeds))
    (seen,) = (y.astype(np.float32) for y in run_model(result.model, tmp_path / "after", feeds))
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=1e-6 * float(np.abs(wanted).max()))
