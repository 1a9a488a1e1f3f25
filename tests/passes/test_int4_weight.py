import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latentc.passes.int4_weight import best_steps, int4_weight, nearest_codes
from latentc.passes.nncf_bridge import int4_codes
from latentc.passes.weights import Floats


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.just(32), st.integers(1, 5)), elements=st.floats(-1000, 1000, width=32)),
    st.sampled_from([16, 32]),
)
def test_codes_and_steps_are_in_range_and_near(weight: Floats, group: int) -> None:
    quantized = int4_weight(weight, group)
    assert quantized.codes.min() >= -8
    assert quantized.codes.max() <= 7
    assert (quantized.steps > 0).all()
    np.testing.assert_array_equal(quantized.steps, quantized.steps.astype(np.float16).astype(np.float32))
    grouped = weight.reshape(-1, group, weight.shape[1])
    error = (quantized.floats() - weight).reshape(grouped.shape)
    # no worse than steps that clip nothing: half a step an entry, and the rounding of a tiny step to float16
    half_step = np.abs(grouped).max(axis=1) * (1.16 / 8 / 2) * 1.002 + 2.0**-24
    assert (np.sqrt(np.square(error).mean(axis=1)) <= half_step).all()


@pytest.mark.parametrize(("K", "N", "group"), [(64, 1, 64), (192, 70, 64), (256, 2100, 16), (64, 1025, 32)])
def test_parts_are_searched_as_the_whole(K: int, N: int, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(K + N).standard_t(4, (K, N)).astype(np.float32)
    parts = best_steps(weight, group)
    monkeypatch.setattr("latentc.passes.int4_weight._PATCH", K * N)
    np.testing.assert_array_equal(parts, best_steps(weight, group))


def test_codes_of_searches_are_those_of_nncf() -> None:
    weight = np.random.default_rng(1).standard_t(4, (128, 96)).astype(np.float32)
    quantized = int4_weight(weight, 32)
    np.testing.assert_array_equal(nearest_codes(weight, quantized.steps), quantized.codes)
    halves = np.repeat(np.arange(-9, 9, dtype=np.float32) + 0.5, 8)[
        :128, None
    ]  # between two codes, and beyond
    steps = np.ones((4, 1), np.float32)
    np.testing.assert_array_equal(nearest_codes(halves, steps), int4_codes(halves, steps, 32))


def test_the_error_of_normal_weights() -> None:
    weight = np.random.default_rng(0).standard_normal((256, 256), dtype=np.float32)
    error = np.linalg.norm(int4_weight(weight, 64).floats() - weight) / np.linalg.norm(weight)
    # what NNCF's signed steps reach without a search is 0.0953
    assert 0.093 < error < 0.096


def test_levels_are_kept_exactly() -> None:
    weight = (np.arange(-8, 8, dtype=np.float32) * 0.5).reshape(16, 1)
    np.testing.assert_allclose(int4_weight(weight, 16).floats(), weight, atol=0.03)
