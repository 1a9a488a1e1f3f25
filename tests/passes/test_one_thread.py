"""Products run on one core, and on as many as before afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped] # ships no types

from latentc.passes.one_thread import one_thread


def blas_threads() -> set[int]:
    """Of numpy's library; scipy, which others may have imported, has one of its own."""
    found = [entry for entry in threadpool_info() if entry["user_api"] == "blas"]
    return {entry["num_threads"] for entry in found if "numpy" in entry["filepath"]}


@pytest.mark.parametrize("before", [1, 2])
def test_one_core_within_and_as_many_as_before_after(before: int) -> None:
    with threadpool_limits(limits=before, user_api="blas"):
        seen = blas_threads()  # a machine with one core has no two
        assert seen
        with one_thread(), one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == seen


def test_an_error_gives_the_cores_back() -> None:
    seen = blas_threads()
    with pytest.raises(np.linalg.LinAlgError), one_thread():
        np.linalg.inv(np.zeros((2, 2)))
    assert blas_threads() == seen
