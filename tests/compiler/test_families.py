"""Every family's components: small ones compute what torch does, published ones are whole graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from tests.compiler.family_graphs import (
    Case,
    accounts_of,
    canonical,
    distinct_cases,
    largest_error,
    sharing,
    traced,
)
from tests.small_configs import small_config

CASES = distinct_cases()

QUICK = ("pixart-sigma-transformer", "sana-1.6b-transformer", "qwen-image-transformer")
"""Masks, linear attention with convolutions, real numbers for complex ones; the others are marked slow."""

# float32 sums in another order: measured 4e-7 (CLIP) to 4e-5 (AutoencoderDC's linear attention)
TOLERANCE = 1e-4


def cases(*quick: str) -> list[object]:
    return [
        pytest.param(case, id=str(case), marks=() if str(case) in quick else pytest.mark.slow)
        for case in CASES
    ]


@pytest.mark.parametrize("case", cases(*QUICK))
def test_a_small_one_equals_torch(case: Case, tmp_path: Path) -> None:
    assert largest_error(case.spec, small_config(case.part), tmp_path) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd-1.5-unet", "sdxl-base-unet"])
def test_at_full_depth_and_width_it_equals_torch(name: str, tmp_path: Path) -> None:
    """SDXL's takes 12 GB of memory and of disk."""
    case = next(case for case in CASES if str(case) == name)
    assert largest_error(case.spec, case.model.config_of(case.spec), tmp_path) <= TOLERANCE


@pytest.mark.parametrize("case", cases())
def test_the_published_one_is_whole_and_every_linear_accounted_for(case: Case) -> None:
    model = traced(case.spec, case.model.config_of(case.spec))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert {node.domain for node in model.graph} == {""}
    values = [value for node in model.graph for value in node.outputs]
    assert ir.DataType.DOUBLE not in {value.dtype for value in values}

    model, matrices = canonical(model, case.spec)
    accounts = accounts_of(model, matrices, case.spec)
    assert accounts.missing == ()
    assert all(accounts.refused.values())
    for left_alone in case.spec.left_alone:
        assert any(case.spec.why_left_alone(name) == left_alone.why for name in accounts.refused)

    undeclared, idle = sharing(model, case.spec)
    assert (undeclared, idle) == ([], [])
