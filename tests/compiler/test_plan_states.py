"""Plan states: looked up where weights are small, known by name where they are not read."""

from pathlib import Path

import pytest
from tests.compiler import foretold
from tests.tiny_models import write_tiny_stable_diffusion

from latentc.compiler.plan_states import plan_states
from latentc.recipes.load import load_recipe


def test_a_model_without_weights_can_be_planned() -> None:
    found = plan_states(foretold.recipe(), (), foretold.store())
    assert found.unread == "the model's weights are not there"
    assert found.targets == ("ort-mobile", "jetson-orin-nano-8gb")
    assert {state.why for state in found.states} == {"not looked up"}
    assert found.states[0].step.label == "export/text_encoder"


def test_small_weights_are_looked_up_and_large_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_stable_diffusion(tmp_path / "model")
    (tmp_path / "tiny.yaml").write_text(foretold.RECIPE, encoding="utf-8")
    loaded = load_recipe(tmp_path / "tiny.yaml", [])
    found = plan_states(loaded, ("onnx",), foretold.store())
    assert (found.unread, found.targets) == ("", ("onnx",))
    assert {state.why for state in found.states} == {"not built yet"}
    monkeypatch.setattr("latentc.compiler.plan_states.READ_AT_MOST_BYTES", 1000)
    unread = plan_states(loaded, ("onnx",), foretold.store())
    assert unread.unread == "the model's weights, 0.0 GiB, were not read"
    assert [one.step.label for one in unread.states] == [one.step.label for one in found.states]
