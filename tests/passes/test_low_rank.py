import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentc.passes.int4_weight import int4_weight
from latentc.passes.low_rank import Branch, BranchType, branch_bytes, largest_rank, low_rank_branch
from latentc.passes.weights import Floats


def drawn(K: int, N: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_t(5, (K, N)).astype(np.float32)


def test_without_refinements_it_is_the_truncated_svd() -> None:
    for K, N in ((96, 64), (64, 96)):
        weight = drawn(K, N, 0)
        u, sizes, v = np.linalg.svd(weight.astype(np.float64))
        best = (u[:, :8] * sizes[:8]) @ v[:8]
        branch = low_rank_branch(weight, 8, BranchType.FLOAT16, 64, 0)
        # float16 factors: 2**-11 of each entry, averaged over 8 products
        assert np.linalg.norm(branch.product() - best) < 1e-3 * np.linalg.norm(best)


def test_signs_are_fixed() -> None:
    branch = low_rank_branch(drawn(64, 64, 1), 4, BranchType.FLOAT16, 64, 0)
    peaks = np.abs(branch.left).argmax(axis=1)
    assert (branch.left[np.arange(4), peaks] > 0).all()


def test_int8_is_nearly_as_good_as_float16_at_half_the_bytes() -> None:
    weight = drawn(128, 128, 2)
    rests = [
        np.linalg.norm(weight - low_rank_branch(weight, 8, branch, 64, 0).product()) for branch in BranchType
    ]
    assert rests[1] < 1.001 * rests[0]
    assert branch_bytes(128, 128, 8, BranchType.INT8) < 0.51 * branch_bytes(128, 128, 8, BranchType.FLOAT16)


@pytest.mark.parametrize("stored", BranchType)
def test_outputs_are_those_of_the_product(stored: BranchType) -> None:
    branch = low_rank_branch(drawn(128, 96, 9), 6, stored, 64, 0)
    rows = drawn(20, 128, 10)
    wanted = rows.astype(np.float64) @ branch.product()
    # float32 sums of 128 and of 6 products
    np.testing.assert_allclose(branch.outputs(rows), wanted, atol=1e-5 * np.abs(wanted).max())


def int4_error(weight: Floats, branch: Branch) -> float:
    rest = weight - branch.product()
    return float(np.linalg.norm(int4_weight(rest, 64).floats() - rest))


def test_refinements_lower_the_error_that_int4_leaves() -> None:
    weight = drawn(128, 128, 3)
    errors = [int4_error(weight, low_rank_branch(weight, 6, BranchType.INT8, 64, n)) for n in (0, 4, 12)]
    assert errors[0] > errors[1] > errors[2]


def test_moments_lower_the_error_of_the_outputs() -> None:
    weight = drawn(128, 64, 4)
    inputs = np.random.default_rng(5).standard_normal((512, 6)) @ drawn(6, 128, 6)
    moments = (inputs.T @ inputs / 512).astype(np.float32)
    errors = []
    for known in (None, moments):
        branch = low_rank_branch(weight, 4, BranchType.INT8, 64, 12, known)
        rest = weight - branch.product()
        errors.append(np.linalg.norm(inputs @ (int4_weight(rest, 64).floats() - rest)))
    assert errors[1] < 0.7 * errors[0]  # 4 of the 6 directions that the inputs have


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 90),
    st.sampled_from(list(BranchType)),
    st.booleans(),
    st.integers(0, 99),
)
def test_left_right_and_rest_are_the_weight(
    groups: int, N: int, branch: BranchType, zeros: bool, seed: int
) -> None:
    weight = drawn(64 * groups, N, seed)
    if zeros:
        weight[:, ::2] = 0
    fitted = low_rank_branch(weight, min(4, N), branch, 64, 1)
    rest = weight - fitted.product()
    error = fitted.product() + rest - weight
    assert np.abs(error).max() <= 1e-6 * np.abs(weight).max()
    assert np.isfinite(fitted.product()).all()


@given(
    st.integers(1, 64).map(lambda n: 64 * n),
    st.integers(1, 4096),
    st.sampled_from([16, 32, 64]),
    st.sampled_from(list(BranchType)),
    st.floats(0.25, 1.0),
)
def test_the_largest_rank_is_the_largest(
    K: int, N: int, group: int, branch: BranchType, ratio: float
) -> None:
    rank = largest_rank(K, N, group, branch, ratio)
    int4_bytes = K * N // 2 + 2 * (K // group) * N

    def fits(tried: int) -> bool:
        return int4_bytes + branch_bytes(K, N, tried, branch) <= int(ratio * 2 * K * N)

    assert rank < 1 or fits(rank)
    assert not fits(max(rank, 0) + 1)


@pytest.mark.parametrize("moments", [None, np.eye(64, dtype=np.float32)])
def test_the_same_weight_gives_the_same_bytes(moments: Floats | None) -> None:
    one, two = (low_rank_branch(drawn(64, 64, 7), 3, BranchType.INT8, 64, 3, moments) for _ in range(2))
    assert (one.right.tobytes(), one.left.tobytes()) == (two.right.tobytes(), two.left.tobytes())


def test_large_layers_are_fitted_nearly_as_well_as_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = drawn(192, 160, 8)
    exact = low_rank_branch(weight, 8, BranchType.FLOAT16, 64, 0).product()
    monkeypatch.setattr("latentc.passes.low_rank.EXACT_SIDE", 16)
    near = low_rank_branch(weight, 8, BranchType.FLOAT16, 64, 0).product()
    # noise without any structure is the hardest case: 4 rounds with 16 spare directions
    assert np.linalg.norm(weight - near) < 1.005 * np.linalg.norm(weight - exact)
