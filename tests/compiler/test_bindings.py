"""Weights stay in the checkpoint until they are asked for; a checkpoint that does not fit is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.compiler.conftest import ExportOf

from latentc.compiler.bindings import Binding, Bindings, bind, bindings_from_json, bindings_to_json
from latentc.compiler.model_folder import open_model
from latentc.errors import InternalError, ModelError
from latentc.recipes.family import Component


@pytest.fixture
def artifact(tiny_stable_diffusion: Path, export_of: ExportOf) -> Path:
    return export_of(tiny_stable_diffusion, Component.TEXT_ENCODER)


@pytest.fixture
def root(tiny_stable_diffusion: Path, tmp_path: Path) -> Path:
    """A copy whose text encoder may be rewritten."""
    return Path(shutil.copytree(tiny_stable_diffusion, tmp_path / "model"))


def rewrite_weights(root: Path, change: dict[str, np.ndarray | str | None]) -> None:
    """Replace, drop (None) or rename (text) weights of the text encoder."""
    from safetensors.numpy import load_file, save_file

    path = root / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    for name, new in change.items():
        old = tensors.pop(name, None)
        if isinstance(new, str):
            assert old is not None
            tensors[new] = old
        elif new is not None:
            tensors[name] = new
    save_file(tensors, path)


def refused(root: Path, artifact: Path) -> str:
    with pytest.raises(ModelError) as caught:
        bind(artifact, open_model(root))
    return str(caught.value).replace(str(root), "MODEL")


def test_weights_are_read_when_asked_for_and_not_kept(root: Path, artifact: Path) -> None:
    model = bind(artifact, open_model(root))
    assert [value.name for value in model.graph.inputs] == ["token_ids"]
    weights = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, ir.LazyTensor)
    }
    assert len(weights) == 36
    weight = weights["encoder.layers.0.mlp.fc1.weight"]
    assert weight.dtype is ir.DataType.FLOAT
    assert not weight.cache
    first = weight.numpy()
    assert first is not weight.numpy()
    from safetensors.numpy import load_file

    stored = load_file(root / "text_encoder" / "model.safetensors")["encoder.layers.0.mlp.fc1.weight"]
    np.testing.assert_array_equal(first, stored.astype(np.float32))


def test_a_missing_weight(root: Path, artifact: Path) -> None:
    rewrite_weights(root, {"final_layer_norm.bias": None})
    assert refused(root, artifact) == (
        "MODEL/text_encoder: final_layer_norm.bias: no safetensors file holds this weight (looked for "
        "final_layer_norm.bias, text_model.final_layer_norm.bias)\n"
        "fix: copy or download the component again"
    )


def test_a_weight_of_another_shape(root: Path, artifact: Path) -> None:
    rewrite_weights(root, {"final_layer_norm.bias": np.zeros(32, np.float16)})
    assert refused(root, artifact) == (
        "MODEL/text_encoder/model.safetensors: final_layer_norm.bias: has shape [32], CLIPTextModel with "
        "this config.json wants [64]\n"
        "fix: use the config.json that belongs to this checkpoint"
    )


def test_a_weight_that_has_no_place(root: Path, artifact: Path) -> None:
    rewrite_weights(root, {"encoder.layers.2.layer_norm1.bias": np.zeros(64, np.float16)})
    assert refused(root, artifact) == (
        "MODEL/text_encoder: encoder.layers.2.layer_norm1.bias: the checkpoint holds 1 weights that "
        "CLIPTextModel with this config.json has no place for\n"
        "fix: use the config.json that belongs to this checkpoint"
    )


def test_old_names_and_stored_position_ids_are_known(root: Path, artifact: Path) -> None:
    from safetensors.numpy import load_file

    names = load_file(root / "text_encoder" / "model.safetensors")
    rewrite_weights(root, {name: f"text_model.{name}" for name in names})
    rewrite_weights(root, {"text_model.embeddings.position_ids": np.zeros((1, 16), np.float32)})
    bound = bind(artifact, open_model(root))
    value = bound.graph.initializers["final_layer_norm.bias"].const_value
    assert value is not None
    np.testing.assert_array_equal(value.numpy(), names["final_layer_norm.bias"].astype(np.float32))


def test_one_checkpoint_serves_encoder_and_decoder(tiny_stable_diffusion: Path, export_of: ExportOf) -> None:
    model = open_model(tiny_stable_diffusion)
    decoder = bind(export_of(tiny_stable_diffusion, Component.VAE_DECODER), model)
    names = [n for n, v in decoder.graph.initializers.items() if isinstance(v.const_value, ir.LazyTensor)]
    assert "post_quant_conv.weight" in names
    assert not any(name.startswith(("encoder.", "quant_conv.")) for name in names)


def test_bindings_round_trip() -> None:
    bindings = Bindings(
        "unet",
        "UNet2DConditionModel",
        "unet",
        {"w": Binding(("w", "v"), (2, 3)), "s": Binding(("s",), ())},
        ("u",),
    )
    assert bindings_from_json(bindings_to_json(bindings)) == bindings
    later = json.dumps({**json.loads(bindings_to_json(bindings)), "format": 9})
    with pytest.raises(InternalError, match=r"^bindings.json: has format 9, 1 was expected$"):
        bindings_from_json(later)
