"""SANA: Gemma 2, a transformer with linear attention and convolutions, and AutoencoderDC."""

from __future__ import annotations

from latentc.recipes.families.autoencoder import autoencoder
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

AUTOENCODER_DC = autoencoder(
    "AutoencoderDC",
    stages="encoder_block_out_channels",
    latent="0",
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
