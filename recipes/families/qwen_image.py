"""Qwen-Image: Qwen 2.5 VL's language model, a transformer with two streams, and a VAE made for films."""

from __future__ import annotations

from latentc.recipes.config import Config, count
from latentc.recipes.families.autoencoder import autoencoder
from latentc.recipes.families.left_alone import first_and_last
from latentc.recipes.families.qwen import qwen_text_encoder
from latentc.recipes.family import Component, ComponentSpec, Family, TensorSpec


def _position_axes(config: Config) -> int:
    return count(config, "axes_dims_rope")


_TRANSFORMER = ComponentSpec(
    Component.TRANSFORMER,
    "transformer",
    "QwenImageTransformer2DModel",
    (
        TensorSpec("latent", "float32", ("B", "S", "C_packed*"), "hidden_states"),
        TensorSpec("timestep", "float32", ("B",), "timestep"),  # 0…1: diffusers' t / 1000
        TensorSpec("text_states", "float32", ("B", "T", "D*"), "encoder_hidden_states"),
        # 1 where a token is of the prompt, 0 where it is padding
        TensorSpec("text_mask", "float32", ("B", "T"), "encoder_hidden_states_mask"),
        # frame, row and column, both counted from the middle; of text: the number of the token, three times
        TensorSpec("image_ids", "float32", ("S", "3*"), "img_shapes.image"),
        TensorSpec("text_ids", "float32", ("T", "3*"), "img_shapes.text"),
    ),
    (TensorSpec("prediction", "float32", ("B", "S", "C_packed*"), "0"),),
    (("C_packed*", "in_channels"), ("D*", "joint_attention_dim"), ("3*", _position_axes)),
    fixed=(("return_dict", False),),
    tokenizer="tokenizer",
    shared=(
        ("attn.to_q", "attn.to_k", "attn.to_v"),
        ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        ("*.img_mod.1", "*.txt_mod.1", "norm_out.linear"),
    ),
    left_alone=first_and_last("img_in.weight", "proj_out.weight"),
)

_VAE = autoencoder(
    "AutoencoderKLQwenImage",
    stages="dim_mult",
    latent="0.mean",
    sizes=(("C*", "z_dim"), ("C_image*", 3), ("1*", 1)),
    frame=("1*",),
)

QWEN_IMAGE = Family(
    "qwen-image",
    "QwenImagePipeline",
    Component.TRANSFORMER,
    (
        qwen_text_encoder(
            "Qwen2_5_VLForConditionalGeneration",
            method="model.language_model",
            states="last_hidden_state",
            tokens=1024,
        ),
        _TRANSFORMER,
        *_VAE,
    ),
    patch=2,
    is_drawn=False,
)
