from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from tests.compiler.small_component import C, K, N, R, save_component, small_component

from latentc.compiler.stages.component_entry import Lowered, entry_of_model, read_lowered, write_lowered
from latentc.errors import InternalError
from latentc.passes.model_file import read_model
from latentc.runtime.manifest import TensorEntry


def test_entry_of_a_model(tmp_path: Path) -> None:
    model = read_model(save_component(small_component(), tmp_path))
    entry = entry_of_model(model, "unet/model.onnx", "")
    assert entry.inputs == (
        TensorEntry("latent", "float32", ("B", 4, "h", "w")),
        TensorEntry("text_states", "float32", ("B", "T", K)),
    )
    assert entry.outputs == (TensorEntry("prediction", "float32", ("B", C, "h", "w")),)
    branch_bytes = 4 * (K * R + R * N)
    assert entry.quantized_bytes == K * N // 2 + 4 * (K // 64) * N + branch_bytes
    assert entry.quantized_fp16_bytes == 2 * K * N


def test_written_and_read_back(tmp_path: Path) -> None:
    model = ir.from_proto(small_component())
    lowered = Lowered(entry_of_model(model, "unet/model.ort", ""), ("conv runs in float32",), "built")
    write_lowered(lowered, tmp_path)
    assert read_lowered(tmp_path) == lowered


@pytest.mark.parametrize("text", ["", "{}", '{"entry": {"file": "x"}, "simulated": [], "proof": ""}'])
def test_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "component.json").write_text(text)
    with pytest.raises(InternalError, match="is no lowered component"):
        read_lowered(tmp_path)
