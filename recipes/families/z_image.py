"""Z-Image and Z-Image-Turbo: Qwen 3, and a transformer in which text and picture are one sequence."""

from __future__ import annotations

from latentc.recipes.families.autoencoder import AUTOENCODER_KL
from latentc.recipes.families.left_alone import first_and_last
from latentc.recipes.families.qwen import qwen_text_encoder
from latentc.recipes.family import Component, ComponentSpec, Family, TensorSpec

_TRANSFORMER = ComponentSpec(
    Component.TRANSFORMER,
    "transformer",
    "ZImageTransformer2DModel",
    (
        TensorSpec("latent", "float32", ("B", "C*", "h", "w"), "x"),
        TensorSpec("timestep", "float32", ("B",), "t"),  # 0…1, from noise to picture
        # T is a multiple of 32; what is behind the prompt becomes the model's own padding
        TensorSpec("text_states", "float32", ("B", "T", "D*"), "cap_feats.states"),
        TensorSpec("text_mask", "float32", ("B", "T"), "cap_feats.mask"),
    ),
    (TensorSpec("prediction", "float32", ("B", "C*", "h", "w"), "0"),),
    # 16: so that the number of patches is a multiple of 32 as well
    (("C*", "in_channels"), ("D*", "cap_feat_dim"), ("step", 16)),
    fixed=(("return_dict", False),),
    tokenizer="tokenizer",
    shared=(
        ("attention.to_q", "attention.to_k", "attention.to_v"),
        ("feed_forward.w1", "feed_forward.w3"),
        ("*.adaLN_modulation.0",),
    ),
    left_alone=first_and_last("all_x_embedder.*.weight", "all_final_layer.*.linear.weight"),
)

Z_IMAGE = Family(
    "z-image",
    "ZImagePipeline",
    Component.TRANSFORMER,
    (
        qwen_text_encoder("Qwen3Model", method="", states="hidden_states.-2", tokens=512),
        _TRANSFORMER,
        *AUTOENCODER_KL,
    ),
    doubles_batch=True,
    is_drawn=False,
)
