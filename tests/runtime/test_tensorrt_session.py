"""Engines: refused in clear words here; with a GPU (marker gpu) they give what the ONNX gives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.small_bundle import TOKENS, WIDTH, write_small_bundle

from latentc.errors import TargetError, ToolMissing
from latentc.recipes.family import Component
from latentc.runtime.bundle import open_bundle
from latentc.runtime.cuda_memory import CudaDevice
from latentc.runtime.engine import EngineOptions, EngineRequest, engine_from_onnx, profile_of
from latentc.runtime.session import open_session
from latentc.runtime.tensorrt_session import (
    TensorrtSession,
    collecting_logger,
    import_tensorrt,
    profile_for,
)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, extra in (("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ToolMissing) as caught:
            import_tensorrt(package)
        assert str(caught.value) == (
            f"the package '{package}' is not installed\nfix: pip install 'latentc[{extra}]'"
        )


def test_the_logger_keeps_errors_and_warnings() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    messages: list[str] = []
    logger: Any = collecting_logger(library, messages)
    severity = library.ILogger.Severity
    for level, text in ((severity.ERROR, "bad"), (severity.WARNING, "odd"), (severity.INFO, "fine")):
        logger.log(level, text)
    assert messages == ["error: bad", "warning: odd"]


def test_the_first_profile_that_fits_is_taken() -> None:
    two, one = ((2, 4, 8, 8), (2, 4, 8, 8)), ((1, 4, 8, 8), (1, 4, 8, 8))
    profiles = [{"latent": two}, {"latent": one}]
    assert profile_for("unet", profiles, {"latent": (2, 4, 8, 8)}) == 0
    assert profile_for("unet", profiles, {"latent": (1, 4, 8, 8)}) == 1
    assert profile_for("unet", [{"latent": ((1, 4, 8, 8), (2, 4, 16, 16))}], {"latent": (2, 4, 12, 8)}) == 0


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 4, 8, 16), (2, 4, 8)])
def test_no_profile_fits(shape: tuple[int, ...]) -> None:
    exact = ((2, 4, 8, 8), (2, 4, 8, 8))
    with pytest.raises(TargetError) as caught:
        profile_for(
            "unet", [{"timestep": ((2,), (2,)), "latent": exact}], {"timestep": (2,), "latent": shape}
        )
    assert str(caught.value) == (
        f"unet: the engine takes 'latent' from [2, 4, 8, 8] to [2, 4, 8, 8], given {list(shape)}\n"
        "fix: ask for another height or width, or build the engine for that size"
    )


@pytest.mark.gpu
def test_bytes_that_are_no_engine_are_refused() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    with pytest.raises(TargetError, match=r"unet: tensorrt_rtx .* cannot read the engine: "):
        TensorrtSession("unet", b"no engine", library, CudaDevice())


@pytest.mark.gpu
def test_an_engine_gives_what_its_onnx_gives(tmp_path: Path) -> None:
    library = pytest.importorskip("tensorrt_rtx")
    device = CudaDevice()
    write_small_bundle(tmp_path / "bundle", "jetson-orin-nano-8gb")
    bundle = open_bundle(tmp_path / "bundle")
    entry = bundle.manifest.components["unet"]
    request = EngineRequest(
        package="tensorrt_rtx",
        onnx=str(bundle.folder / entry.onnx),
        engine=str(tmp_path / "model.engine"),
        report=str(tmp_path / "report.json"),
        profile=profile_of(bundle, Component.UNET, EngineOptions((16, 16), (64, 48))),
        compute_capability=device.compute_capability,
    )
    engine_from_onnx("unet", request)
    random = np.random.default_rng(0)
    with (
        TensorrtSession("unet", Path(request.engine).read_bytes(), library, device) as session,
        open_session(bundle, Component.UNET, stand_in=True) as stand_in,
    ):
        for batch, h, w in ((2, 8, 6), (1, 16, 12), (2, 4, 4)):
            inputs = {
                "latent": random.standard_normal((batch, 4, h, w)).astype(np.float32),
                "timestep": np.full(batch, 500, np.float32),
                "text_states": random.standard_normal((batch, TOKENS, WIDTH)).astype(np.float32),
            }
            result, expected = session.run(inputs)["prediction"], stand_in.run(inputs)["prediction"]
            # float16 sums of 36 products against float32 ones; tanh keeps both within 1.
            np.testing.assert_allclose(result, expected, rtol=0, atol=5e-3)
        with pytest.raises(TargetError, match="the engine takes 'latent' from"):
            session.run({**inputs, "latent": np.zeros((1, 4, 64, 64), np.float32)})
