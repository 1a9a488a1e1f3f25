"""T5's encoder, as families use it."""

from __future__ import annotations

from dataclasses import replace

from latentc.recipes.family import Component, ComponentSpec, TensorSpec

TOKEN_MASK = TensorSpec("token_mask", "int64", ("B", "T"), "attention_mask")
"""1 where a token is of the prompt, 0 where it is padding."""


def t5_encoder(component: Component, *, tokens: int) -> ComponentSpec:
    """T5 as ``component``, whose pipeline gives it at most ``tokens`` tokens."""
    folder = str(component)
    return ComponentSpec(
        component,
        folder,
        "T5EncoderModel",
        (TensorSpec("token_ids", "int64", ("B", "T"), "input_ids"),),
        (TensorSpec("text_states", "float32", ("B", "T", "D*"), "last_hidden_state"),),
        tokenizer=folder.replace("text_encoder", "tokenizer"),
        longest_text=tokens,
        shared=(
            ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v"),
            ("DenseReluDense.wi_0", "DenseReluDense.wi_1"),
        ),
    )


def masked_t5_encoder(component: Component, *, tokens: int) -> ComponentSpec:
    """T5 whose pipeline keeps it from reading the padding."""
    plain = t5_encoder(component, tokens=tokens)
    return replace(plain, inputs=(*plain.inputs, TOKEN_MASK))
