"""What second moments say of a weight's output."""

import numpy as np
import pytest

from latentc.passes.moments import output_norm


def test_the_norm_of_the_output_without_computing_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((500, 24)).astype(np.float32)
    weight = generator.standard_normal((24, 7)).astype(np.float32)
    expected = np.sqrt(np.square(rows.astype(np.float64) @ weight).sum(axis=1).mean())
    assert output_norm(weight, rows.T @ rows / np.float32(500)) == pytest.approx(expected, rel=1e-5)
    assert output_norm(np.zeros_like(weight), np.eye(24, dtype=np.float32)) == 0.0
