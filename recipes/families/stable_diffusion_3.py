"""Stable Diffusion 3 and 3.5: two CLIP text encoders, T5, a transformer with joint attention."""

from __future__ import annotations

from latentc.recipes.families.autoencoder import AUTOENCODER_KL
from latentc.recipes.families.clip import clip_projected
from latentc.recipes.families.left_alone import LAST
from latentc.recipes.families.t5 import t5_encoder
from latentc.recipes.family import Component, ComponentSpec, Family, TensorSpec

_TRANSFORMER = ComponentSpec(
    Component.TRANSFORMER,
    "transformer",
    "SD3Transformer2DModel",
    (
        TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "hidden_states"),
        TensorSpec("timestep", "float32", ("B",), "timestep"),  # 0…1000
        TensorSpec("text_states", "float32", ("B", "T", "D*"), "encoder_hidden_states"),
        TensorSpec("pooled_states", "float32", ("B", "D_pooled*"), "pooled_projections"),
    ),
    (TensorSpec("prediction", "float32", ("B", "C*", "h", "w"), "0"),),
    (
        ("C*", "in_channels"),
        ("D*", "joint_attention_dim"),
        ("D_pooled*", "pooled_projection_dim"),
        ("step", "patch_size"),
    ),
    fixed=(("return_dict", False),),
    tokenizer="tokenizer_3",
    shared=(
        ("attn.to_q", "attn.to_k", "attn.to_v"),
        ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
        ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        ("*.norm1.linear", "*.norm1_context.linear", "norm_out.linear"),
    ),
    left_alone=(LAST,),  # the first is a convolution
)

STABLE_DIFFUSION_3 = Family(
    "stable-diffusion-3",
    "StableDiffusion3Pipeline",
    Component.TRANSFORMER,
    (
        clip_projected(Component.TEXT_ENCODER),
        clip_projected(Component.TEXT_ENCODER_2),
        t5_encoder(Component.TEXT_ENCODER_3, tokens=256),
        _TRANSFORMER,
        *AUTOENCODER_KL,
    ),
    doubles_batch=True,
    unloaded=("feature_extractor", "image_encoder"),
    is_drawn=False,
)
