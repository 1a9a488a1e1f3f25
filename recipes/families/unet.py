"""UNet2DConditionModel: the denoiser of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from latentc.recipes.config import Config, count
from latentc.recipes.family import Component, ComponentSpec, TensorSpec


def smallest_step(config: Config) -> int:
    """How much h and w are multiples of: downsampling halves them between blocks."""
    return int(2 ** (count(config, "block_out_channels") - 1))


UNET = ComponentSpec(
    Component.UNET,
    "unet",
    "UNet2DConditionModel",
    (
        TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "sample"),
        TensorSpec("timestep", "float32", ("B",), "timestep"),  # 0…1000
        TensorSpec("text_states", "float32", ("B", "T", "D*"), "encoder_hidden_states"),
    ),
    (TensorSpec("prediction", "float32", ("B", "C*", "h", "w"), "0"),),
    (("C*", "in_channels"), ("D*", "cross_attention_dim"), ("step", smallest_step)),
    fixed=(("return_dict", False),),
    absent=("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim"),
    tokenizer="tokenizer",
    shared=(
        ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        ("*attn2.to_k", "*attn2.to_v"),  # all of them read the text
        ("*.time_emb_proj",),
    ),
)
