"""The modelled seconds against sums by hand, and what must hold for any device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from latentc.errors import PassError
from latentc.passes.allotment import Allotment, Precision
from latentc.passes.latency import Latency, latency_of
from latentc.passes.low_rank import BranchType
from latentc.recipes.roofline import Products, Roofline
from latentc.recipes.target import TARGETS

ROOFLINE = Roofline(
    bandwidth_gb_s=10.0,
    overlaps=True,
    node_us=5.0,
    float_products=Products("float", 100.0),
    int8_products=Products("int8", 200.0),
    int4_products=Products("int4", 150.0, ((64, 150.0), (128, 300.0))),
    source="made up",
)
ONE = Latency("made-up", ROOFLINE, 4)
K, N = 256, 512
FLOAT, INT8, INT4 = (Allotment(precision) for precision in Precision)


def seconds(allotment: Allotment, rows: int, group: int = 64, latency: Latency = ONE) -> float:
    return latency.linear(K, N, rows, allotment, group, BranchType.INT8)


def test_one_row_takes_what_its_bytes_take() -> None:
    # codes or floats, steps, x and y, at 10 GB/s, and a node of 5 us
    assert seconds(FLOAT, 1) == pytest.approx((4 * 256 * 512 + 4 * 768) / 10e9 + 5e-6)
    assert seconds(INT8, 1) == pytest.approx((256 * 512 + 4 * 512 + 4 * 768) / 10e9 + 5e-6)
    assert seconds(INT4, 1) == pytest.approx((256 * 512 / 2 + 4 * 4 * 512 + 4 * 768) / 10e9 + 5e-6)


def test_many_rows_take_what_their_products_take() -> None:
    operations = 2 * 1000 * 256 * 512
    assert seconds(FLOAT, 1000) == pytest.approx(operations / 100e9 + 5e-6)
    assert seconds(INT8, 1000) == pytest.approx(operations / 200e9 + 5e-6)
    assert seconds(INT4, 1000) == pytest.approx(operations / 150e9 + 5e-6)
    assert seconds(INT4, 1000, 128) == pytest.approx(operations / 300e9 + 5e-6)


def test_a_device_that_does_not_overlap_takes_both() -> None:
    alone = Latency("made-up", Roofline(**{**vars(ROOFLINE), "overlaps": False}), 4)
    computing, moving = 2 * 8 * 256 * 512 / 100e9, (4 * 256 * 512 + 4 * 8 * 768) / 10e9
    assert seconds(FLOAT, 8, latency=alone) == pytest.approx(computing + moving + 5e-6)


def test_a_branch_is_two_thin_products_and_a_sum() -> None:
    R, M = 16, 4
    right = (R * (K + 2) + 2 + 4 * M * (K + R)) / 10e9  # int8 codes and float16 steps
    left = (R * N + 4 * M * (R + N)) / 10e9
    beside = (4 * 3 * M * N) / 10e9
    found = seconds(Allotment(Precision.INT4, 16), M) - seconds(INT4, M)
    assert found == pytest.approx(right + left + beside + 3 * 5e-6)


def test_directions_kept_apart_are_a_thin_product_and_a_sum() -> None:
    R, M = 8, 4
    along = (R * N + 4 * M * (R + N)) / 10e9
    found = seconds(Allotment(Precision.INT4, 0, R), M) - seconds(INT4, M)
    assert found == pytest.approx(along + 4 * 3 * M * N / 10e9 + 2 * 5e-6)


def test_a_subspace_is_two_products_a_scaling_and_a_difference() -> None:
    R, M = 8, 4
    product = (R * K + 2 * R + 4 + 4 * M * (K + R)) / 10e9
    rest = (4 * 2 * M * R + 4 * 3 * M * K) / 10e9
    assert ONE.subspace(K, M, R) == pytest.approx(2 * product + rest + 4 * 5e-6)


def test_blocks_are_a_product_with_one_small_matrix() -> None:
    # 32 rows of 256 in blocks of 64: 128 rows of 64
    computing, moving = 2 * 128 * 64 * 64 / 100e9, 4 * (64 * 64 + 2 * 128 * 64) / 10e9
    assert ONE.blocks(32 * 256, 64) == pytest.approx(max(computing, moving) + 5e-6)


devices = some.sampled_from([latency_of(one.name, "") for one in TARGETS if one.roofline is not None])
sides = some.integers(1, 48).map(lambda number: 64 * number)


@given(devices, sides, sides, some.integers(1, 4096), some.sampled_from([0, 4, 16]))
def test_more_rows_and_more_rank_never_take_less(
    latency: Latency, K: int, N: int, rows: int, rank: int
) -> None:
    def of(rows: int, rank: int) -> float:
        return latency.linear(K, N, rows, Allotment(Precision.INT4, rank), 64, BranchType.INT8)

    assert of(rows, rank) <= of(rows + 1, rank)
    assert of(rows, rank) < of(rows, rank + 4)


def test_on_a_board_four_bits_are_faster_only_where_bytes_count() -> None:
    orin = latency_of("jetson-orin-nano-8gb", "")

    def share(rows: int) -> float:
        floats = orin.linear(3072, 3072, rows, FLOAT, 64, BranchType.INT8)
        return orin.linear(3072, 3072, rows, INT4, 64, BranchType.INT8) / floats

    assert share(1) < 0.35
    assert share(4096) == 1


def test_here_both_integers_are_faster_with_any_number_of_rows() -> None:
    cpu = latency_of("ort-mobile", "")
    for rows in (1, 64, 4096):
        floats, int8, int4 = (
            cpu.linear(1280, 1280, rows, allotment, 64, BranchType.INT8) for allotment in (FLOAT, INT8, INT4)
        )
        assert max(int8, int4) < floats


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("ort-mobil", "there is no target 'ort-mobil'\nfix: did you mean 'ort-mobile'?"),
        (
            "onnx",
            "how fast 'onnx' is, is not known: it is no one device\n"
            "fix: choose one of: jetson-agx-orin-32gb, jetson-agx-orin-64gb, jetson-orin-nano-4gb, "
            "jetson-orin-nano-8gb, jetson-orin-nx-16gb, jetson-orin-nx-8gb, ort-mobile",
        ),
    ],
)
def test_a_device_that_nothing_is_known_of(device: str, message: str) -> None:
    with pytest.raises(PassError) as caught:
        latency_of(device, "allocate.device")
    assert str(caught.value) == f"allocate.device: {message}"
