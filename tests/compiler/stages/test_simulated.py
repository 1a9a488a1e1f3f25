"""INT4 activations are simulated where that is said, and refused where they would have to be executed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.compiler.small_component import save_component, small_component, small_inputs

from latentc.compiler.stages.component_entry import read_lowered
from latentc.compiler.stages.lower import Lower
from latentc.errors import TargetError
from latentc.passes.base import PassContext
from latentc.passes.model_file import read_model, write_model
from latentc.passes.quantize_activations import QuantizeActivations
from latentc.recipes.target import target_named


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_component(small_component(), tmp_path_factory.mktemp("int4"))
    records = tmp_path_factory.mktemp("records")
    np.savez(records / "0000.npz", **small_inputs())  # type: ignore[arg-type] # numpy's stubs
    step = QuantizeActivations()
    write_model(step(read_model(folder), PassContext(calibration=records)).model, folder / "rounded")
    return folder / "rounded"


def lower(target: str, component: Path, out: Path) -> None:
    out.mkdir()
    Lower(target, "unet").run({"transform": component}, out, lambda done, words: None)


def test_the_portable_target_says_so(component: Path, tmp_path: Path) -> None:
    lower("onnx", component, tmp_path / "out")
    assert read_lowered(tmp_path / "out").simulated == (
        "unet: INT4 activations, rounded in float32 in 1 place",
    )


@pytest.mark.parametrize("name", ["ort-mobile", "rtx", "jetson-orin-nano-8gb"])
def test_a_target_that_would_have_to_execute_it_refuses(name: str, component: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        lower(name, component, tmp_path / "out")
    assert str(caught.value) == (
        f"{name}: unet: text_states.rounded: asks for INT4 activations, and this target executes "
        f"{'; '.join(target_named(name).executes)}\n"
        "fix: take quantize-activations out of the recipe, or build for target onnx, which simulates it"
    )
