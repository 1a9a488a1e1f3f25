from pathlib import Path

import numpy as np
import pytest
from tests.passes.four_gates import assert_twice_is_once
from tests.passes.graphs import inputs_of, model_of, relative_error, run_model, values
from tests.passes.lora_tensors import write_lora

from latentc.errors import PassError
from latentc.passes.base import PassContext
from latentc.passes.fuse_lora import FuseLora
from latentc.passes.weights import Floats

UNET = """g (float[B,64] x, float[B,4,h,w] picture) => (float[B,32] y, float[B,8,h,w] z)
    <float[64,32] "block.to_q.weight", float[8,4,3,3] "block.conv.weight", float[32,32] "block.ff.weight"> {
    q = MatMul (x, "block.to_q.weight")
    y = MatMul (q, "block.ff.weight")
    z = Conv <pads = [1, 1, 1, 1]> (picture, "block.conv.weight") }"""


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "lora.safetensors")


def weights_after(path: Path, **options: object) -> dict[str, Floats]:
    step = FuseLora(path, **options)  # type: ignore[arg-type] # the constructor checks
    graph = step(model_of(UNET), PassContext()).model.graph
    tensors = {name: value.const_value for name, value in graph.initializers.items()}
    return {
        name: np.asarray(tensor.numpy(), np.float32) for name, tensor in tensors.items() if tensor is not None
    }


def test_the_sum_is_what_the_paper_says(lora: Path) -> None:
    after = weights_after(lora, scale=0.5)
    alpha = float(values("alpha", ()))
    linear = values("up", (32, 4)) @ values("down", (4, 64))
    np.testing.assert_allclose(
        after["block.to_q.weight"],
        values("block.to_q.weight", (64, 32)) + 0.5 * alpha / 4 * linear.T,
        atol=1e-6,  # float32 sums of 4 products
    )
    kernel = np.einsum("nr,rchw->nchw", values("up", (8, 2, 1, 1))[:, :, 0, 0], values("down", (2, 4, 3, 3)))
    np.testing.assert_allclose(
        after["block.conv.weight"], values("block.conv.weight", (8, 4, 3, 3)) + 0.5 * kernel, atol=1e-6
    )
    np.testing.assert_array_equal(after["block.ff.weight"], values("block.ff.weight", (32, 32)))


def test_a_linear_and_a_one_by_one_kernel_are_the_same_update(tmp_path: Path) -> None:
    text = """g (float[B,8,h,w] x) => (float[B,6,h,w] y) <float[6,8,1,1] "a.weight"> {
        y = Conv (x, "a.weight") }"""
    down, up = values("down", (2, 8)), values("up", (6, 2))
    path = write_lora(tmp_path / "a.safetensors", {"a.lora_A.weight": down, "a.lora_B.weight": up})
    graph = FuseLora(path)(model_of(text), PassContext()).model.graph
    tensor = graph.initializers["a.weight"].const_value
    assert tensor is not None
    np.testing.assert_allclose(
        np.asarray(tensor.numpy())[:, :, 0, 0],
        values("a.weight", (6, 8, 1, 1))[:, :, 0, 0] + up @ down,
        atol=1e-6,
    )


def test_flat_names_find_their_layer(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_block_to_q.lora_down.weight": values("down", (4, 64)),
        "lora_unet_block_to_q.lora_up.weight": values("up", (32, 4)),
    }
    result = FuseLora(write_lora(tmp_path / "a.safetensors", tensors))(model_of(UNET), PassContext())
    assert [change.where for change in result.changes] == ["block.to_q.weight"]


def test_older_names_of_text_encoders_find_their_layer(tmp_path: Path) -> None:
    text = """g (float[B,8] x) => (float[B,6] y) <float[8,6] "layers.0.fc.weight"> {
        y = MatMul (x, "layers.0.fc.weight") }"""
    tensors = {
        "text_encoder.text_model.layers.0.fc.lora_A.weight": values("down", (2, 8)),
        "text_encoder.text_model.layers.0.fc.lora_B.weight": values("up", (6, 2)),
    }
    path = write_lora(tmp_path / "a.safetensors", tensors)
    result = FuseLora(path, component="text_encoder")(model_of(text), PassContext())
    assert [change.where for change in result.changes] == ["layers.0.fc.weight"]


def test_a_scale_of_zero_changes_no_number(lora: Path, tmp_path: Path, seed: int) -> None:
    model = model_of(UNET)
    after = FuseLora(lora, scale=0.0)(model, PassContext()).model
    feeds = inputs_of(model, {"B": 2, "h": 5, "w": 5}, seed)
    for one, other in zip(
        run_model(model, tmp_path / "a", feeds), run_model(after, tmp_path / "b", feeds), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_graph_computes_with_the_sum(lora: Path, tmp_path: Path, seed: int) -> None:
    model = model_of(UNET)
    after = FuseLora(lora)(model, PassContext()).model
    feeds = inputs_of(model, {"B": 2, "h": 5, "w": 5}, seed)
    (y, _) = run_model(after, tmp_path, feeds)
    sums = weights_after(lora)
    wanted = feeds["x"].astype(np.float32) @ sums["block.to_q.weight"] @ sums["block.ff.weight"]
    assert relative_error(y, wanted) < 1e-5  # float32 sums over 64 and 32 products


def test_twice_is_once(lora: Path) -> None:
    assert_twice_is_once(FuseLora(lora), model_of(UNET), PassContext())


def test_two_loras_add_up(lora: Path, tmp_path: Path) -> None:
    context = PassContext()
    other = write_lora(tmp_path / "other.safetensors")
    twice = FuseLora(other)(FuseLora(lora)(model_of(UNET), context).model, context).model
    tensor = twice.graph.initializers["block.to_q.weight"].const_value
    assert tensor is not None
    np.testing.assert_allclose(
        np.asarray(tensor.numpy()), weights_after(lora, scale=2.0)["block.to_q.weight"], atol=1e-6
    )


def test_an_unknown_component(lora: Path) -> None:
    with pytest.raises(PassError) as caught:
        FuseLora(lora, component="vae")(model_of(UNET), PassContext())
    assert str(caught.value) == (
        "fuse-lora.component: there is no component 'vae'\n"
        "fix: choose one of: unet, transformer, text_encoder, text_encoder_2, text_encoder_3"
    )
