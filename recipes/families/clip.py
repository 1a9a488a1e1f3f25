"""CLIP's text encoders, as families use them."""

from __future__ import annotations

from latentc.recipes.family import Component, ComponentSpec, Library, TensorSpec

_TOKEN_IDS = TensorSpec("token_ids", "int64", ("B", "T"), "input_ids")
_SHARED = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),)

CLIP_LAST_STATES = ComponentSpec(
    Component.TEXT_ENCODER,
    "text_encoder",
    "CLIPTextModel",
    Library.TRANSFORMERS,
    (_TOKEN_IDS,),
    (TensorSpec("text_states", "float32", ("B", "T", "D*"), "last_hidden_state"),),
    tokenizer="tokenizer",
    shared=_SHARED,
)

CLIP_POOLED = ComponentSpec(
    Component.TEXT_ENCODER,
    "text_encoder",
    "CLIPTextModel",
    Library.TRANSFORMERS,
    (_TOKEN_IDS,),
    (TensorSpec("pooled_states", "float32", ("B", "D*"), "pooler_output"),),
    tokenizer="tokenizer",
    shared=_SHARED,
)
