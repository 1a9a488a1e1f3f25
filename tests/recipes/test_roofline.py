"""Rooflines: which rate holds for a group, and that a board's figures are those of its datasheet."""

from __future__ import annotations

import pytest

from latentc.recipes.roofline import Products, orin
from latentc.recipes.target import TARGETS


@pytest.mark.parametrize(("group", "gops"), [(16, 50.0), (32, 60.0), (64, 60.0), (128, 80.0), (256, 80.0)])
def test_a_group_has_the_rate_of_the_next_smaller_one(group: int, gops: float) -> None:
    assert Products("INT4", 55.0, ((16, 50.0), (32, 60.0), (128, 80.0))).gops_in_groups(group) == gops


def test_without_groups_there_is_one_rate() -> None:
    assert Products("INT4", 55.0).gops_in_groups(64) == 55.0


@pytest.mark.parametrize(
    ("multiprocessors", "clock_ghz", "sparse_int8_tops"),
    [(8, 1.02, 67), (8, 1.173, 117 - 40), (8, 1.173, 157 - 80), (16, 1.3, 275 - 105)],  # less DLA's share
)
def test_a_board_s_peak_is_its_datasheet_s(
    multiprocessors: int, clock_ghz: float, sparse_int8_tops: float
) -> None:
    sustained = orin(multiprocessors, clock_ghz, 100.0).float_products.gops
    peak_tops = 4 * sustained / 0.6 / 1000  # INT8 is twice FP16, sparse twice dense
    assert peak_tops == pytest.approx(sparse_int8_tops, rel=0.02)


def test_devices_have_a_roofline_and_portable_targets_have_none() -> None:
    without = {target.name for target in TARGETS if target.roofline is None}
    assert without == {"onnx", "ort-x86", "rtx"}


def test_what_is_modelled_is_what_the_target_says_that_it_executes() -> None:
    for target in TARGETS:
        if target.roofline is not None:
            assert target.roofline.float_products.executes in target.executes
            four_bits = target.roofline.int4_products.executes
            assert any(four_bits == entry.removesuffix(" (linears)") for entry in target.executes)
