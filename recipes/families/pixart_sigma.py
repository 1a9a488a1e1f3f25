"""PixArt-Sigma: T5, and a transformer with cross-attention and one modulation for all blocks."""

from __future__ import annotations

from latentc.recipes.families.autoencoder import AUTOENCODER_KL
from latentc.recipes.families.left_alone import LAST
from latentc.recipes.families.t5 import masked_t5_encoder
from latentc.recipes.family import Component, ComponentSpec, Family, TensorSpec

_TRANSFORMER = ComponentSpec(
    Component.TRANSFORMER,
    "transformer",
    "PixArtTransformer2DModel",
    (
        TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "hidden_states"),
        TensorSpec("timestep", "float32", ("B",), "timestep"),  # 0…1000
        TensorSpec("text_states", "float32", ("B", "T", "D*"), "encoder_hidden_states"),
        # 1 where a token is of the prompt, 0 where it is padding
        TensorSpec("text_mask", "float32", ("B", "T"), "encoder_attention_mask"),
    ),
    # the first half of C_out is the prediction, the second the learned variance
    (TensorSpec("prediction", "float32", ("B", "C_out*", "h", "w"), "0"),),
    (
        ("C*", "in_channels"),
        ("C_out*", "out_channels"),
        ("D*", "caption_channels"),
        ("step", "patch_size"),
    ),
    # alpha's checkpoints of 1024 pixels take sizes as well; sigma's do not
    fixed=(("return_dict", False),),
    tokenizer="tokenizer",
    shared=(
        ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        ("*attn2.to_k", "*attn2.to_v"),  # all of them read the text
    ),
    left_alone=(LAST,),  # the first is a convolution
)

PIXART_SIGMA = Family(
    "pixart-sigma",
    "PixArtSigmaPipeline",
    Component.TRANSFORMER,
    (masked_t5_encoder(Component.TEXT_ENCODER, tokens=300), _TRANSFORMER, *AUTOENCODER_KL),
    doubles_batch=True,
    is_drawn=False,
)
