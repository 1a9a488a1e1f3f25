"""Rotations keep the function, spread what sticks out, and are taken only where held-out rows say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.passes.four_gates import assert_twice_is_once, largest_error
from tests.passes.graphs import inputs_of, model_of, operators, relative_error, run_model

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.layer_rows import ROWS, rows_of
from latentc.passes.quantize_activations import QuantizeActivations
from latentc.passes.quantize_int4 import QuantizeInt4
from latentc.passes.rotate import Rotate, hadamard, largest_block, turned, turned_back
from latentc.passes.sequence import run_passes
from latentc.passes.smooth import Smooth
from latentc.passes.weight_bytes import weigh
from latentc.passes.weights import find_linears

GRAPH = """g (float[B,T,192] x) => (float[B,T,64] y, float[B,T,64] z)
    <float[192,64] w, float[192,64] v, float[64,64] u> {
    y = MatMul (x, w)
    inner = MatMul (x, v)
    z = MatMul (inner, u) }"""


def spiky(count: int, seed: int) -> np.ndarray:
    """Rows in which one channel of each block sticks out."""
    rows = np.random.default_rng(seed).standard_normal((count, 192)).astype(np.float32)
    rows[:, [5, 77, 140]] *= 25
    return rows


def recorded(folder: Path, seed: int, *, flat: bool = False) -> PassContext:
    (folder / ROWS).mkdir(parents=True)
    for name, width in (("w", 192), ("v", 192), ("u", 64)):
        for number, kind in enumerate(("fit", "held_out")):
            rows = spiky(64, seed + number)[:, :width]
            if flat:  # every value ±1: a rotation makes it normal, which 4 bits hold worse
                rows = np.sign(rows)
            np.save(folder / ROWS / f"{name}.{kind}.npy", rows)
    np.savez(folder / "0000.npz", x=spiky(20, seed + 2)[None])
    return PassContext(calibration=folder)


@given(st.integers(0, 8))
def test_hadamard(power: int) -> None:
    size = 2**power
    matrix = hadamard(size)
    np.testing.assert_array_equal(matrix @ matrix, size * np.eye(size))
    np.testing.assert_array_equal(np.abs(matrix), np.ones((size, size)))


@given(st.integers(1, 12), st.integers(0, 1000))
def test_turned_rows_times_the_turned_weight(multiple: int, seed: int) -> None:
    K = 16 * multiple
    size = largest_block(K, 64)
    assert K % size == 0
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((5, K)).astype(np.float32)
    weight = generator.standard_normal((K, 3)).astype(np.float32)
    exact = rows.astype(np.float64) @ weight
    np.testing.assert_allclose(turned(rows, size) @ turned_back(weight, size), exact, rtol=0, atol=1e-4)


def test_the_function_stays_the_same(tmp_path: Path, seed: int) -> None:
    model, context = model_of(GRAPH), recorded(tmp_path / "records", seed)
    result = Rotate(rank=0, fold=False)(model, context)
    assert [change.what.rpartition(", ")[2] for change in result.changes] == ["online: fold is false"] * 2
    after = result.model
    assert operators(after).count("Cast") == 1  # both values have blocks of 64, and share one matrix
    assert largest_error(model, after, tmp_path, seed) < 2e-6  # sums of 64 in float32
    assert_twice_is_once(Rotate(rank=0), model, recorded(tmp_path / "again", seed))


def test_a_linear_before_gives_its_outputs_rotated(tmp_path: Path, seed: int) -> None:
    model, context = model_of(GRAPH), recorded(tmp_path / "records", seed)
    result = Rotate(rank=0)(model, context)
    told = {change.where: change.what.partition(", ")[2] for change in result.changes}
    assert told == {"w, v": "online: 'x' is an input", "u": "folded into v"}
    assert operators(result.model).count("Reshape") == 2
    assert largest_error(model, result.model, tmp_path, seed) < 2e-6  # sums of 64 in float32


def test_four_bits_lose_less_of_it(tmp_path: Path, seed: int) -> None:
    model, context = model_of(GRAPH), recorded(tmp_path / "records", seed)
    feeds = {"x": spiky(30, seed + 5)[None]}
    wanted = run_model(model, tmp_path / "float", feeds)[0]
    errors = []
    for number, before in enumerate(([], [Rotate(rank=0)])):
        rounded, _ = run_passes(model, [*before, QuantizeInt4(), QuantizeActivations()], context)
        errors.append(relative_error(run_model(rounded, tmp_path / str(number), feeds)[0], wanted))
    assert errors[1] < 0.8 * errors[0]


def test_it_follows_smooth(tmp_path: Path, seed: int) -> None:
    """The rows of a rotated linear are those that the graph computes before it."""
    model, context = model_of(GRAPH), recorded(tmp_path / "records", seed)
    chain = [Smooth(rank=0, optional=True), Rotate(rank=0, optional=True)]
    after, _ = run_passes(model, chain, context)
    feeds = inputs_of(model, {"B": 1, "T": 64}, seed)
    feeds["x"] = np.load(tmp_path / "records" / ROWS / "w.fit.npy")[None]
    linear = next(one for one in find_linears(after.graph) if one.name == "w")
    rows = rows_of("test", linear, context).fit
    (weight,) = [value for name, value in after.graph.initializers.items() if name == "w"]
    assert weight.const_value is not None
    ours = rows @ np.asarray(weight.const_value.numpy())
    theirs = run_model(model, tmp_path / "before", feeds)[0][0]
    assert relative_error(ours, theirs) < 1e-5


def test_what_is_flat_already_stays(tmp_path: Path, seed: int) -> None:
    context = recorded(tmp_path, seed, flat=True)
    result = Rotate(rank=0, optional=True)(model_of(GRAPH), context)
    assert result.changes == ()
    assert {refusal.where for refusal in result.refusals} == {"w, v", "u"}
    assert all("no better on held-out rows" in refusal.why for refusal in result.refusals)


def test_blocks_are_powers_of_two() -> None:
    with pytest.raises(PassError) as caught:
        Rotate(block=96)
    assert str(caught.value) == "rotate.block: is 96, wanted a power of two\nfix: write block=256"


def test_the_matrix_counts_as_part_of_what_is_quantized(tmp_path: Path, seed: int) -> None:
    model, context = model_of(GRAPH), recorded(tmp_path, seed)
    plain = weigh(QuantizeInt4()(model, context).model)
    rotated = weigh(QuantizeInt4()(Rotate(rank=0)(model, context).model, context).model)
    assert rotated.quantized_bytes - plain.quantized_bytes == 64 * 64 + 3 * 8  # int8, and the shape of x
    assert rotated.fp16_bytes == plain.fp16_bytes
