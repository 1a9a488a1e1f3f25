"""A denoiser of no family is called as its signature asks, or refused with the argument's name."""

from __future__ import annotations

import pytest

from latentc.compiler.unknown_class import spec_of_class
from latentc.errors import ModelError
from latentc.recipes.family import size_of

FLUX_LIKE = {"in_channels": 64, "joint_attention_dim": 4096, "axes_dims_rope": [16, 56, 56], "patch_size": 1}


def test_tokens_and_their_positions() -> None:
    spec = spec_of_class("ChromaTransformer2DModel", "transformer", FLUX_LIKE)
    assert [(tensor.name, tensor.place, tensor.axes) for tensor in spec.inputs] == [
        ("latent", "hidden_states", ("B", "S", "C*")),
        ("text_states", "encoder_hidden_states", ("B", "T", "D*")),
        ("timestep", "timestep", ("B",)),
        ("image_ids", "img_ids", ("S", "A*")),
        ("text_ids", "txt_ids", ("T", "A*")),
    ]
    assert {axis: size_of(size, FLUX_LIKE) for axis, size in spec.sizes} == {
        "C*": 64,
        "D*": 4096,
        "A*": 3,
        "step": 1,
    }


def test_pictures_in_patches() -> None:
    config = {"in_channels": 4, "joint_attention_dim": 2048, "patch_size": 2}
    spec = spec_of_class("AuraFlowTransformer2DModel", "transformer", config)
    assert [tensor.name for tensor in spec.inputs] == ["latent", "text_states", "timestep"]
    assert dict(spec.sizes)["step"] == 2


def test_a_strange_argument_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        spec_of_class("ZImageTransformer2DModel", "transformer", {"in_channels": 16})
    assert str(caught.value) == (
        "ZImageTransformer2DModel.forward: x: is required, and latentc does not know what it is\n"
        "fix: add a family: recipes/families/ has one file each"
    )


def test_a_size_that_no_key_says_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        spec_of_class("AuraFlowTransformer2DModel", "transformer", {"in_channels": 4})
    assert str(caught.value) == (
        "AuraFlowTransformer2DModel: config.json: has none of joint_attention_dim, caption_channels, "
        "cross_attention_dim, text_embed_dim, cap_feat_dim, one of which says the size of an input\n"
        "fix: add a family: recipes/families/ has one file each"
    )
