"""Denoisers of the families become real engines, in float16 and at two blocks' depth."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from tests.compiler.family_graphs import bind_weights, distinct_cases, inputs_of, traced, with_random_weights
from tests.small_configs import small_config

from latentc.compiler.flat import FlatModule, config_of
from latentc.compiler.stages.rtx_engine import build_rtx_engine
from latentc.compiler.stages.tensorrt_limits import check_for_tensorrt
from latentc.passes.base import PassContext
from latentc.passes.pass_text import pass_from_text
from latentc.passes.sequence import run_passes

DENOISERS = (
    "sd-1.5-unet",
    "sdxl-base-unet",
    "sd-3.5-medium-transformer",
    "flux.1-dev-transformer",
    "pixart-sigma-transformer",
    "sana-1.6b-transformer",
    "flux.2-klein-4b-transformer",
    "z-image-turbo-transformer",
    "qwen-image-transformer",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", DENOISERS)
def test_a_small_denoiser_becomes_an_engine(name: str, tmp_path: Path) -> None:
    case = next(case for case in distinct_cases() if str(case) == name)
    config = small_config(case.part)
    module = with_random_weights(case.spec, config)
    model = traced(case.spec, config)
    bind_weights(model, module, FlatModule(module, case.spec))
    model, _ = run_passes(model, [pass_from_text("canonicalize"), pass_from_text("cast")], PassContext())
    check_for_tensorrt(model, "rtx", str(case.spec.component))
    ir.save(model, tmp_path / "model.onnx", external_data="model.onnx.data")
    T = 32 if "z-image" in name else 12
    inputs = inputs_of(case.spec, config_of(module), 1, T, (4, 6))
    engine = tmp_path / "model.engine"
    shapes = {name: array.shape for name, array in inputs.items()}
    build_rtx_engine(str(case.spec.component), tmp_path / "model.onnx", engine, ("8.6",), [shapes], 600)
    weights = sum(tensor.numel() for tensor in module.parameters())
    assert engine.stat().st_size > weights  # most of two bytes each
