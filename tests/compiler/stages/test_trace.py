"""The stage trace: a tiny UNet at the recipe's size, without its weights."""

from pathlib import Path

from tests.tiny_models import write_tiny_stable_diffusion

from latentc.compiler.forecast.trace import TRACE_FILE, trace_from_json
from latentc.compiler.model_folder import open_model
from latentc.compiler.stages.trace import TraceCall
from latentc.recipes.family import Component


def test_a_unet_is_traced_from_its_config(tmp_path: Path) -> None:
    model = open_model(write_tiny_stable_diffusion(tmp_path / "model"), read_weights=False)
    folder = model.folder_of(Component.UNET)
    sizes = (("B", 1), ("T", 16), ("h", 16), ("w", 16))
    stage = TraceCall(model.family.name, "unet", folder.class_name, folder.config_json, sizes)
    out = tmp_path / "out"
    out.mkdir()
    stage.run({}, out, lambda fraction, words: None)
    trace = trace_from_json((out / TRACE_FILE).read_text(encoding="utf-8"))
    whole = open_model(tmp_path / "model", read_values=False).components["unet"]
    assert trace.parameters == sum(one.size for file in whole.files for one in file.tensors.values())
    assert trace.values[trace.outputs[0]].shape == (1, 4, 16, 16)
    assert stage.options()["sizes"] == dict(sizes)
