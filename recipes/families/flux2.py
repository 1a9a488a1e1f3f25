"""FLUX.2 klein: Qwen 3, a transformer whose blocks share their modulation, a VAE of 32 channels."""

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
    "Flux2Transformer2DModel",
    (
        TensorSpec("latent", "float32", ("B", "S", "C_packed*"), "hidden_states"),
        TensorSpec("timestep", "float32", ("B",), "timestep"),  # 0…1: diffusers' t / 1000
        TensorSpec("text_states", "float32", ("B", "T", "D*"), "encoder_hidden_states"),
        TensorSpec("image_ids", "float32", ("S", "4*"), "img_ids"),
        TensorSpec("text_ids", "float32", ("T", "4*"), "txt_ids"),
        TensorSpec("guidance", "float32", ("B",), "guidance", needs="guidance_embeds"),
    ),
    (TensorSpec("prediction", "float32", ("B", "S", "C_packed*"), "0"),),
    (("C_packed*", "in_channels"), ("D*", "joint_attention_dim"), ("4*", _position_axes)),
    fixed=(("return_dict", False),),
    tokenizer="tokenizer",
    shared=(
        ("attn.to_q", "attn.to_k", "attn.to_v"),
        ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        (
            "double_stream_modulation_img.linear",
            "double_stream_modulation_txt.linear",
            "single_stream_modulation.linear",
            "norm_out.linear",
        ),
    ),
    left_alone=first_and_last("x_embedder.weight", "proj_out.weight"),
)

FLUX_2 = Family(
    "flux-2",
    "Flux2KleinPipeline",
    Component.TRANSFORMER,
    (
        # the states after three of its layers, side by side
        qwen_text_encoder(
            "Qwen3ForCausalLM",
            method="model",
            states="hidden_states.9+hidden_states.18+hidden_states.27",
            tokens=512,
        ),
        _TRANSFORMER,
        *autoencoder("AutoencoderKLFlux2", stages="block_out_channels", latent="0.mean"),
    ),
    patch=2,
    is_drawn=False,
)
