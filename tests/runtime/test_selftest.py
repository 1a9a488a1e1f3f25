"""The self-test passes what it recorded and fails what differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.small_bundle import CHANNELS, TOKENS, WIDTH, write_small_bundle

from latentc.errors import BundleError, GateFailed
from latentc.recipes.family import Component
from latentc.runtime.bundle import Bundle, open_bundle, write_manifest
from latentc.runtime.selftest import (
    SelfTestFinding,
    relative_error,
    require_passed,
    run_selftest,
    write_golden,
    write_limits,
)
from latentc.runtime.session import open_session

INPUTS = {
    "latent": np.random.default_rng(0).standard_normal((1, CHANNELS, 4, 4)).astype(np.float32),
    "timestep": np.array([500.0], np.float32),
    "text_states": np.random.default_rng(1).standard_normal((1, TOKENS, WIDTH)).astype(np.float32),
}


def _with_selftest(folder: Path, limit: float, change: float = 0.0, target: str = "onnx") -> Bundle:
    """A bundle whose golden output is its own, scaled by 1 + ``change``."""
    manifest = write_small_bundle(folder, target)
    with open_session(open_bundle(folder), Component.UNET, stand_in=True) as session:
        outputs = session.run(INPUTS)
    golden = {name: array * np.float32(1 + change) for name, array in outputs.items()}
    write_golden(folder, Component.UNET, INPUTS, golden)
    write_limits(folder, {Component.UNET: limit})
    write_manifest(folder, manifest)
    return open_bundle(folder)


def test_its_own_outputs_pass(tmp_path: Path) -> None:
    bundle = _with_selftest(tmp_path / "bundle", limit=1e-6)
    findings = run_selftest(bundle)
    assert findings == (SelfTestFinding(Component.UNET, "prediction", 0.0, 1e-6),)
    require_passed(findings)


def test_a_boards_bundle_tests_itself_as_a_stand_in(tmp_path: Path) -> None:
    bundle = _with_selftest(tmp_path / "bundle", limit=1e-6, target="jetson-orin-nano-8gb")
    require_passed(run_selftest(bundle, stand_in=True))


def test_a_difference_over_the_limit_fails_and_is_measured(tmp_path: Path) -> None:
    bundle = _with_selftest(tmp_path / "bundle", limit=0.05, change=0.25)
    findings = run_selftest(bundle)
    assert abs(findings[0].relative_error - 0.2) < 1e-6  # |1 - 1.25| / 1.25
    with pytest.raises(GateFailed) as caught:
        require_passed(findings)
    assert str(caught.value).startswith("self-test: unet.prediction is off by 0.2, limit 0.05\nfix: build")


def test_nothing_compared_is_no_pass() -> None:
    with pytest.raises(GateFailed, match="self-test: compared nothing"):
        require_passed(())


def test_a_bundle_without_one(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"does not list 'reference/selftest\.json'"):
        run_selftest(open_bundle(tmp_path / "bundle"))


def test_a_component_without_a_limit(tmp_path: Path) -> None:
    bundle = _with_selftest(tmp_path / "bundle", limit=0.1)
    with pytest.raises(BundleError, match=r"reference/selftest\.json: has no limit for vae_decoder"):
        run_selftest(bundle, [Component.VAE_DECODER])


def test_golden_files_are_the_same_bytes_twice(tmp_path: Path) -> None:
    one = write_golden(tmp_path / "one", Component.UNET, INPUTS, {"prediction": INPUTS["latent"]})
    two = write_golden(
        tmp_path / "two",
        Component.UNET,
        dict(reversed(INPUTS.items())),
        {"prediction": INPUTS["latent"].copy()},
    )
    assert one.read_bytes() == two.read_bytes()


vectors = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3).map(
    lambda values: np.array(values, np.float32)
)


@given(vectors)
def test_relative_error_of_itself_is_zero(vector: np.typing.NDArray[np.float32]) -> None:
    assert relative_error(vector, vector) == 0.0


def test_relative_error_of_what_is_no_number() -> None:
    assert relative_error(np.array([np.nan], np.float32), np.ones(1, np.float32)) == float("inf")
    assert relative_error(np.ones(1, np.float32), np.zeros(1, np.float32)) == float("inf")
