"""What second moments say of a weight's output."""

import numpy as np
import pytest

from latentc.passes.moments import DriftSums, output_norm


def test_the_norm_of_the_output_without_computing_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((500, 24)).astype(np.float32)
    weight = generator.standard_normal((24, 7)).astype(np.float32)
    expected = np.sqrt(np.square(rows.astype(np.float64) @ weight).sum(axis=1).mean())
    assert output_norm(weight, rows.T @ rows / np.float32(500)) == pytest.approx(expected, rel=1e-5)
    assert output_norm(np.zeros_like(weight), np.eye(24, dtype=np.float32)) == 0.0


def test_the_error_of_an_output_whose_input_drifted(seed: int) -> None:
    generator = np.random.default_rng(seed)
    exact = generator.standard_normal((500, 24)).astype(np.float32)
    seen = exact + 0.1 * generator.standard_normal((500, 24)).astype(np.float32)
    weight, error = (generator.standard_normal((24, 7)).astype(np.float32) for _ in range(2))
    sums = DriftSums()
    for part in (slice(0, 100), slice(100, 500)):  # as they come, and with an axis in front
        sums.add("x", seen[None, part], exact[None, part])
    found = sums.averages()["x"]
    away = exact.astype(np.float64) @ weight - seen.astype(np.float64) @ (weight - error)
    assert found.output_error(weight, error) == pytest.approx(
        np.sqrt(np.square(away).sum(axis=1).mean()), rel=1e-5
    )
    wide = exact.astype(np.float64)
    np.testing.assert_allclose(found.exact(), wide.T @ wide / 500, atol=1e-5)  # float32 sums of 500 rows


def test_what_does_not_drift_has_the_moments_of_the_original(seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((50, 24)).astype(np.float32)
    sums = DriftSums()
    sums.add("x", rows, rows)
    found = sums.averages()["x"]
    assert not found.across.any()
    assert not found.drift.any()
    np.testing.assert_array_equal(found.exact(), found.seen)
