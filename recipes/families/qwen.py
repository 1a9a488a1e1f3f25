"""Qwen's language models, as families use them to read prompts."""

from __future__ import annotations

from latentc.recipes.families.t5 import TOKEN_MASK
from latentc.recipes.family import Component, ComponentSpec, TensorSpec


def qwen_text_encoder(class_name: str, *, method: str, states: str, tokens: int) -> ComponentSpec:
    """A Qwen model that reads ``tokens`` tokens; ``states`` says where in its result the text lies."""
    return ComponentSpec(
        Component.TEXT_ENCODER,
        "text_encoder",
        class_name,
        (TensorSpec("token_ids", "int64", ("B", "T"), "input_ids"), TOKEN_MASK),
        (TensorSpec("text_states", "float32", ("B", "T", "D*"), states),),
        method=method,
        fixed=(("output_hidden_states", True), ("use_cache", False)),
        tokenizer="tokenizer",
        longest_text=tokens,
        shared=(
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("mlp.gate_proj", "mlp.up_proj"),
        ),
    )
