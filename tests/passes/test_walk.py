"""The walk: what each linear sees when those before it are quantized, against whole runs of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from tests.passes.graphs import inputs_of, model_of

from latentc.passes.base import PassContext
from latentc.passes.calibration import inner_values
from latentc.passes.split_low_rank import SplitLowRank
from latentc.passes.walk import Drift, walk
from latentc.passes.weights import Array, Floats, Linear, find_linears, read_floats

BLOCK = """g (float[B,T,64] x, float[B,1,64] level) => (float[B,T,64] y)
    <float[64,64] q, float[64,64] k, float[64,128] up, float[128,64] down, float[64,64] m, float[64] b,
     float[64] s> {
    noise = MatMul (level, m)
    curved = Sigmoid (noise)
    queries = MatMul (x, q)
    keys = MatMul (x, k)
    product = Mul (queries, keys)
    shifted = Add (product, curved)
    large = Exp (s)
    scaled = Mul (shifted, large)
    wide = MatMul (scaled, up)
    active = Relu (wide)
    narrow = MatMul (active, down)
    biased = Add (narrow, b)
    y = Add (biased, x) }"""
INPUT = {"m": "level", "q": "x", "k": "x", "up": "scaled", "down": "active"}


def samples_of(model: ir.Model, count: int) -> list[dict[str, Array]]:
    return [inputs_of(model, {"B": 1, "T": 9}, number) for number in range(count)]


def coarse(weight: Floats) -> Floats:
    return np.asarray(np.rint(weight * 20) / 20, dtype=np.float32)


def walked(
    model: ir.Model, samples: Sequence[Mapping[str, Array]]
) -> dict[str, tuple[Linear, Floats, Drift]]:
    """What ``walk`` tells of every linear, each rounded coarsely on the way."""
    seen: dict[str, tuple[Linear, Floats, Drift]] = {}

    def quantize(linear: Linear, weight: Floats, drift: Drift) -> Floats:
        seen[linear.name] = linear, weight, drift
        return coarse(weight)

    walk(model, list(find_linears(model.graph)), samples, quantize)
    return seen


def value_of(model: ir.Model, name: str, sample: dict[str, Array]) -> NDArray[np.float64]:
    """``name`` in a whole run of ``model``: rows in float64."""
    (found,) = (values[name] for values in inner_values(model, [name], [sample]))
    return np.asarray(found.reshape(-1, found.shape[-1]), dtype=np.float64)


def average(one: list[NDArray[np.float64]], other: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    left, right = np.concatenate(one), np.concatenate(other)
    return np.asarray(left.T @ right / len(left))


def test_each_linear_sees_what_the_linears_before_it_leave() -> None:
    """Moments against whole runs of the graph, with the weights of all earlier segments rounded."""
    model = model_of(BLOCK)
    samples = samples_of(model, 4)
    seen = walked(model, samples)
    rounded = {"m": (), "q": (), "k": (), "up": ("m", "q", "k"), "down": ("m", "q", "k", "up")}
    assert set(seen) == set(rounded)
    for name, before in rounded.items():
        changed = model.clone()
        for weight in before:
            value = changed.graph.initializers[weight]
            assert value.const_value is not None
            value.const_value = ir.tensor(coarse(read_floats(value.const_value)), name=weight)
        linear, weight_seen, drift = seen[name]
        stored = linear.weight.const_value
        assert stored is not None
        np.testing.assert_array_equal(weight_seen, read_floats(stored))
        for moments, numbers in ((drift.fit, (0, 1, 3)), (drift.held_out, (2,))):
            exact = [value_of(model, INPUT[name], samples[one]) for one in numbers]
            now = [value_of(changed, INPUT[name], samples[one]) for one in numbers]
            missing = [one - other for one, other in zip(exact, now, strict=True)]
            # float32 sums of some tens of rows, of values up to ten
            np.testing.assert_allclose(moments.seen, average(now, now), atol=1e-4)
            np.testing.assert_allclose(moments.across, average(now, missing), atol=1e-4)
            np.testing.assert_allclose(moments.drift, average(missing, missing), atol=1e-4)


def test_nothing_drifts_before_anything_is_quantized() -> None:
    model = model_of(BLOCK)
    seen = walked(model, samples_of(model, 3))
    for name in ("m", "q", "k"):
        assert not seen[name][2].fit.across.any()
        assert not seen[name][2].held_out.drift.any()
    assert seen["up"][2].fit.drift.any()


def test_a_single_record_serves_for_both() -> None:
    model = model_of(BLOCK)
    drift = walked(model, samples_of(model, 1))["down"][2]
    assert drift.fit is drift.held_out


def test_it_repeats_to_the_last_bit() -> None:
    model = model_of(BLOCK)
    first, second = (walked(model, samples_of(model, 3)) for _ in range(2))
    for name, (_, _, drift) in first.items():
        again = second[name][2]
        assert drift.fit.seen.tobytes() == again.fit.seen.tobytes()
        assert drift.fit.across.tobytes() == again.fit.across.tobytes()


def test_a_weight_that_is_used_twice_is_quantized_where_it_is_used_first() -> None:
    model = model_of("""g (float[B,64] x) => (float[B,64] y) <float[64,64] twice, float[64,64] last> {
        once = MatMul (x, twice)
        again = MatMul (once, twice)
        y = MatMul (again, last) }""")
    sample = inputs_of(model, {"B": 40}, 1)
    drift = walked(model, [sample])["last"][2]
    changed = model.clone()
    value = changed.graph.initializers["twice"]
    assert value.const_value is not None
    value.const_value = ir.tensor(coarse(read_floats(value.const_value)), name="twice")
    now = value_of(changed, "again", sample)
    np.testing.assert_allclose(drift.fit.seen, average([now], [now]), atol=1e-4)


def test_branches_are_computed_once() -> None:
    """Asking for the rest alone leaves the other parts waiting, and writing computes them again."""
    model = model_of("g (float[B,128] x) => (float[B,64] y) <float[128,64] w> { y = MatMul (x, w) }")
    split = SplitLowRank(calibrated=False, max_ratio=0.4)(model, PassContext()).model
    before = {name: type(value.const_value) for name, value in split.graph.initializers.items()}
    walked(split, [inputs_of(split, {"B": 40}, 1)])
    after = {name: type(value.const_value) for name, value in split.graph.initializers.items()}
    assert {name for name in before if before[name] is not after[name]} == {
        "w.right",
        "w.right.steps",
        "w.left",
        "w.left.step",
    }
