"""Compress-heads: the budget, what held-out inputs lose, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.passes.attention_graphs import BESIDE, JOINED, attention_model, feeds_of, recorded, thin
from tests.passes.four_gates import assert_twice_is_once
from tests.passes.graphs import model_of, relative_error, run_model

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.compress_heads import CompressHeads
from latentc.passes.weights import find_linears

TEXTS = {"joined": JOINED, "beside": BESIDE}


def parameters(model: ir.Model) -> int:
    return sum(linear.shape[0] * linear.shape[1] for linear in find_linears(model.graph))


def lost(model: ir.Model, step: CompressHeads, folder: Path, seed: int) -> float:
    """Relative error on inputs that were never recorded."""
    context = recorded(model, folder / "records", seed)
    after = step(model, context).model
    feeds = feeds_of(model, seed, 100)
    wanted = run_model(model, folder / "before", feeds)
    seen = run_model(after, folder / f"joint-{step.joint}-{step.calibrated}", feeds)
    return max(relative_error(one, other) for one, other in zip(seen, wanted, strict=True))


@pytest.mark.parametrize("calibrated", [True, False])
def test_heads_lose_less_than_weights_truncated_alone(calibrated: bool, tmp_path: Path, seed: int) -> None:
    model = attention_model()
    errors = [
        lost(model, CompressHeads(keep=0.6, multiple=1, joint=joint, calibrated=calibrated), tmp_path, seed)
        for joint in (True, False)
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("joint", [True, False])
def test_the_budget_holds(keep: float, joint: bool, tmp_path: Path, seed: int) -> None:
    model = attention_model(source="x")
    context = recorded(model, tmp_path, seed)
    after = CompressHeads(keep=keep, multiple=1, joint=joint)(model, context).model
    step = 4 * 48 if joint else 56  # one channel more in each head, or one rank more
    whole = parameters(model)
    assert keep * whole - step < parameters(after) <= keep * whole


def test_thin_heads_keep_their_function(tmp_path: Path, seed: int) -> None:
    """Where heads do no more than half of their width can, half is enough; damping of 1e-6 shows."""
    model = attention_model()
    for name in ("q_weight", "v_weight"):
        thin(model, name, 4)
    for name in ("q_bias", "v_bias"):
        model.graph.initializers[name].const_value = ir.tensor(np.zeros(32, np.float32), name=name)
    step = CompressHeads(keep=0.5, calibrated=False)
    assert lost(model, step, tmp_path, seed) < 2e-3


def test_what_is_recorded_counts(tmp_path: Path, seed: int) -> None:
    model = attention_model()
    errors = [
        lost(model, CompressHeads(multiple=1, calibrated=calibrated), tmp_path, seed)
        for calibrated in (True, False)
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("name", sorted(TEXTS))
@pytest.mark.parametrize("joint", [True, False])
def test_streams_and_channels_beside(name: str, joint: bool, tmp_path: Path, seed: int) -> None:
    model = model_of(TEXTS[name])
    assert lost(model, CompressHeads(keep=0.8, multiple=1, joint=joint), tmp_path, seed) < 0.4


@pytest.mark.parametrize("joint", [True, False])
def test_twice_is_once(joint: bool, tmp_path: Path, seed: int) -> None:
    model = attention_model()
    assert_twice_is_once(
        CompressHeads(multiple=2, joint=joint, optional=True), model, recorded(model, tmp_path, seed)
    )


@pytest.mark.parametrize("between", ["norm", "rotation"])
def test_scores_that_are_not_the_weights_product_stay(between: str) -> None:
    model = attention_model(between=between)
    result = CompressHeads(calibrated=False, multiple=2)(model, PassContext())
    assert [change.what for change in result.changes] == ["vo 8 to 4"]
    (refusal,) = result.refusals
    word = {"norm": "normalized (QK-norm)", "rotation": "turned by their positions (RoPE)"}[between]
    assert refusal.why == f"qk: queries and keys are {word} before they meet"
    names = {name for name, value in result.model.graph.initializers.items() if value.shape == (24, 32)}
    assert names == {"q_weight"}


def test_losses_are_reported_for_held_out_inputs(tmp_path: Path, seed: int) -> None:
    model = attention_model()
    context = recorded(model, tmp_path, seed)
    CompressHeads(multiple=2)(model, context)
    losses = {loss.layer: loss.relative_error for loss in context.ledger.losses}
    assert set(losses) == {"q_weight", "v_weight"}
    assert all(0 < error < 0.5 for error in losses.values())


def test_skip(tmp_path: Path, seed: int) -> None:
    model = attention_model()
    result = CompressHeads(multiple=2, skip=("k_*",))(model, recorded(model, tmp_path, seed))
    assert [refusal.why for refusal in result.refusals] == ["qk: matches skip"]


FEED_FORWARD = """g (float[B,T,32] x) => (float[B,T,32] y)
    <float[32,128] up, float[128] bias, float[128,32] down> {
    a0 = MatMul (x, up)
    a = Add (a0, bias)
    inner = Gelu (a)
    y = MatMul (inner, down) }"""


def test_feed_forward(tmp_path: Path, seed: int) -> None:
    model = model_of(FEED_FORWARD)
    context = recorded(model, tmp_path, seed)
    result = CompressHeads(feed_forward=True, keep=0.5)(model, context)
    assert {change.where for change in result.changes} == {"up", "down"}
    assert parameters(result.model) <= 0.5 * parameters(model)
    assert_twice_is_once(CompressHeads(feed_forward=True), model, context)
    with pytest.raises(PassError, match="changed nothing"):
        CompressHeads()(model, context)


def test_the_smallest_heads_must_fit() -> None:
    with pytest.raises(PassError) as caught:
        CompressHeads(keep=0.2, calibrated=False)(attention_model(), PassContext())
    assert str(caught.value) == (
        "compress-heads.keep: is 0.2, and heads of 4 take 0.500 of the parameters\n"
        "fix: raise keep to 0.501, or lower multiple"
    )


def test_no_calibration_is_an_error() -> None:
    with pytest.raises(PassError, match="needs calibration data, and there is none"):
        CompressHeads()(attention_model(), PassContext())
