"""FLUX.1: dev, schnell and Kontext."""

from __future__ import annotations

from latentc.recipes.config import Config, count
from latentc.recipes.families.autoencoder import AUTOENCODER_KL
from latentc.recipes.families.clip import CLIP_POOLED
from latentc.recipes.families.left_alone import first_and_last
from latentc.recipes.families.t5 import t5_encoder
from latentc.recipes.family import Component, ComponentSpec, Family, TensorSpec


def _position_axes(config: Config) -> int:
    return count(config, "axes_dims_rope")


FLUX_TRANSFORMER = ComponentSpec(
    Component.TRANSFORMER,
    "transformer",
    "FluxTransformer2DModel",
    (
        TensorSpec("latent", "float32", ("B", "S", "C_packed*"), "hidden_states"),
        TensorSpec("timestep", "float32", ("B",), "timestep"),  # 0…1: diffusers' t / 1000
        TensorSpec("text_states", "float32", ("B", "T", "D*"), "encoder_hidden_states"),
        TensorSpec("pooled_states", "float32", ("B", "D_pooled*"), "pooled_projections"),
        TensorSpec("image_ids", "float32", ("S", "3*"), "img_ids"),
        TensorSpec("text_ids", "float32", ("T", "3*"), "txt_ids"),
        TensorSpec("guidance", "float32", ("B",), "guidance", needs="guidance_embeds"),
    ),
    (TensorSpec("prediction", "float32", ("B", "S", "C_packed*"), "0"),),
    (
        ("C_packed*", "in_channels"),
        ("D*", "joint_attention_dim"),
        ("D_pooled*", "pooled_projection_dim"),
        ("3*", _position_axes),
    ),
    fixed=(("return_dict", False),),
    tokenizer="tokenizer_2",
    shared=(
        ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        ("*.norm1.linear", "*.norm1_context.linear", "*.norm.linear", "norm_out.linear"),
    ),
    left_alone=first_and_last("x_embedder.weight", "proj_out.weight"),
)

FLUX = Family(
    "flux",
    "FluxPipeline",
    Component.TRANSFORMER,
    (CLIP_POOLED, t5_encoder(Component.TEXT_ENCODER_2, tokens=512), FLUX_TRANSFORMER, *AUTOENCODER_KL),
    patch=2,
    also=("FluxKontextPipeline",),
)
