"""SANA: Gemma 2, a transformer with linear attention and convolutions, and AutoencoderDC."""

from __future__ import annotations

from latentc.recipes.config import Config, count
from latentc.recipes.families.left_alone import LAST
from latentc.recipes.families.t5 import TOKEN_MASK
from latentc.recipes.family import Component, ComponentSpec, Family, TensorSpec

_GEMMA = ComponentSpec(
    Component.TEXT_ENCODER,
    "text_encoder",
    "Gemma2Model",
    (TensorSpec("token_ids", "int64", ("B", "T"), "input_ids"), TOKEN_MASK),
    (TensorSpec("text_states", "float32", ("B", "T", "D*"), "last_hidden_state"),),
    fixed=(("use_cache", False),),
    tokenizer="tokenizer",
    longest_text=300,
    shared=(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")),
)

_TRANSFORMER = ComponentSpec(
    Component.TRANSFORMER,
    "transformer",
    "SanaTransformer2DModel",
    (
        TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "hidden_states"),
        TensorSpec("timestep", "float32", ("B",), "timestep"),  # 0…1000
        TensorSpec("text_states", "float32", ("B", "T", "D*"), "encoder_hidden_states"),
        # 1 where a token is of the prompt, 0 where it is padding
        TensorSpec("text_mask", "float32", ("B", "T"), "encoder_attention_mask"),
        TensorSpec("guidance", "float32", ("B",), "guidance", needs="guidance_embeds"),  # Sprint
    ),
    (TensorSpec("prediction", "float32", ("B", "C*", "h", "w"), "0"),),
    (("C*", "in_channels"), ("D*", "caption_channels"), ("step", "patch_size")),
    fixed=(("return_dict", False),),
    tokenizer="tokenizer",
    shared=(
        ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        ("*attn2.to_k", "*attn2.to_v"),  # all of them read the text
    ),
    left_alone=(LAST,),  # the first is a convolution
)

_SIZES = (("C*", "latent_channels"), ("C_image*", "in_channels"))


def _downscale(config: Config) -> int:
    return int(2 ** (count(config, "encoder_block_out_channels") - 1))


AUTOENCODER_DC = (
    ComponentSpec(
        Component.VAE_ENCODER,
        "vae",
        "AutoencoderDC",
        (TensorSpec("image", "float32", ("B", "C_image*", "H", "W"), "x"),),
        (TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "0"),),
        (*_SIZES, ("pixel_step", _downscale)),
        method="encode",
        fixed=(("return_dict", False),),
    ),
    ComponentSpec(
        Component.VAE_DECODER,
        "vae",
        "AutoencoderDC",
        (TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "z"),),
        (TensorSpec("image", "float32", ("B", "C_image*", "H", "W"), "0"),),
        _SIZES,
        method="decode",
        fixed=(("return_dict", False),),
        shared=(("attn.to_q", "attn.to_k", "attn.to_v"),),
    ),
)

SANA = Family(
    "sana",
    "SanaPipeline",
    Component.TRANSFORMER,
    (_GEMMA, _TRANSFORMER, *AUTOENCODER_DC),
    doubles_batch=True,
    also=("SanaSprintPipeline",),
    is_drawn=False,
)
