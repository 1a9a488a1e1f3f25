"""Two factors lose what the formula says, least of all factors, and take the place of any rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.passes.four_gates import largest_error
from tests.passes.graphs import model_of

from latentc.errors import PassError
from latentc.passes.two_factors import Factorable, most_rank, output_basis, put_factors, rank_losses
from latentc.passes.weights import Floats, find_linears, read_floats

GRAPH = """g (float[B,T,24] x) => (float[B,T,40] y) <float[24,40] w, float[40] b> {
    product = MatMul (x, w)
    y = Add (product, b) }"""


def drawn(seed: int, K: int, N: int) -> tuple[Floats, Floats, Floats]:
    """A weight, rows of inputs and their moments."""
    generator = np.random.default_rng(seed)
    rows = (generator.standard_normal((200, K)) @ generator.standard_normal((K, K))).astype(np.float32)
    return (
        generator.standard_normal((K, N)).astype(np.float32),
        rows,
        (rows.T @ rows / 200).astype(np.float32),
    )


@given(st.integers(0, 100), st.integers(3, 10), st.integers(3, 10))
def test_losses_are_those_of_the_outputs(seed: int, K: int, N: int) -> None:
    weight, rows, moments = drawn(seed, K, N)
    basis = output_basis(weight, moments)
    losses = rank_losses(weight, basis, moments)
    assert losses.shape == (min(K, N) + 1,)
    outputs = rows.astype(np.float64) @ weight
    for rank in range(min(K, N) + 1):
        kept = basis[:, :rank].astype(np.float64)
        missed = outputs - outputs @ kept @ kept.T
        wanted = np.sum(missed**2) / np.sum(outputs**2)
        assert losses[rank] == pytest.approx(wanted, abs=1e-5)  # moments are stored as float32


@given(st.integers(0, 100))
def test_nothing_of_that_rank_loses_less(seed: int) -> None:
    weight, rows, moments = drawn(seed, 9, 7)
    losses = rank_losses(weight, output_basis(weight, moments), moments)
    outputs = rows.astype(np.float64) @ weight
    sizes = np.linalg.svd(outputs, compute_uv=False) ** 2
    for rank in range(1, 7):
        least = sizes[rank:].sum() / sizes.sum()
        assert least - 1e-6 <= losses[rank] <= 1.02 * least + 1e-3  # damping leaves it near the least


def test_most_rank_saves_parameters() -> None:
    for K, N in ((1, 1), (4, 4), (128, 128), (100, 300)):
        rank = most_rank(K, N)
        assert rank * (K + N) < K * N <= (rank + 1) * (K + N)


def factored(change: Callable[[Floats], Floats]) -> tuple[ir.Model, ir.Model]:
    """The graph with a changed weight, as it is and with two factors of rank 6."""
    before = model_of(GRAPH)
    value = before.graph.initializers["w"]
    if value.const_value is None:
        raise AssertionError("w has a value")
    value.const_value = ir.tensor(change(read_floats(value.const_value)), name="w")
    after = before.clone()
    (linear,) = find_linears(after.graph)
    (node,) = linear.nodes
    put_factors(after.graph, Factorable(linear.weight, node, node, linear.shape), 6, None, "some-pass")
    return before, after


def rank_six(weight: Floats) -> Floats:
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    return np.asarray((u[:, :6] * s[:6]) @ v[:6], dtype=np.float32)


def test_a_weight_of_that_rank_stays_what_it_is(tmp_path: Path, seed: int) -> None:
    before, after = factored(rank_six)
    assert largest_error(before, after, tmp_path, seed) < 1e-5  # float32 in both
    shapes = {name: tuple(value.shape or ()) for name, value in after.graph.initializers.items()}
    assert shapes == {"w.right": (24, 6), "w.left": (6, 40), "b": (40,)}


def test_not_finite() -> None:
    _, after = factored(lambda weight: np.full_like(weight, np.nan))
    value = after.graph.initializers["w.left"].const_value
    assert value is not None
    with pytest.raises(PassError) as caught:
        value.numpy()
    assert str(caught.value) == "some-pass: 'w' holds NaN or infinity\nfix: check the checkpoint"
