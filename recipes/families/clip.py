"""CLIP's text encoders, as families use them."""

from __future__ import annotations

from dataclasses import replace

from latentc.recipes.family import Component, ComponentSpec, TensorSpec

CLIP_LAST_STATES = ComponentSpec(
    Component.TEXT_ENCODER,
    "text_encoder",
    "CLIPTextModel",
    (TensorSpec("token_ids", "int64", ("B", "T"), "input_ids"),),
    (TensorSpec("text_states", "float32", ("B", "T", "D*"), "last_hidden_state"),),
    tokenizer="tokenizer",
    shared=(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),),
)

CLIP_POOLED = replace(
    CLIP_LAST_STATES,
    outputs=(TensorSpec("pooled_states", "float32", ("B", "D*"), "pooler_output"),),
)

CLIP_PENULTIMATE = replace(
    CLIP_LAST_STATES,
    outputs=(TensorSpec("text_states", "float32", ("B", "T", "D*"), "hidden_states.-2"),),
    fixed=(("output_hidden_states", True),),
)
"""The states before the last layer, which SDXL and SD3 read."""


def clip_projected(component: Component) -> ComponentSpec:
    """The states before the last layer and the projected pooled state."""
    folder = str(component)
    return replace(
        CLIP_PENULTIMATE,
        component=component,
        folder=folder,
        class_name="CLIPTextModelWithProjection",
        outputs=(
            *CLIP_PENULTIMATE.outputs,
            TensorSpec("pooled_states", "float32", ("B", "D_pooled*"), "text_embeds"),
        ),
        tokenizer=folder.replace("text_encoder", "tokenizer"),
    )
