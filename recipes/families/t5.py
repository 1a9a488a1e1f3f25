"""T5's encoder, as families use it."""

from __future__ import annotations

from latentc.recipes.family import Component, ComponentSpec, Library, TensorSpec


def t5_encoder(component: Component, *, tokens: int) -> ComponentSpec:
    """T5 as ``component``, whose pipeline gives it at most ``tokens`` tokens."""
    folder = str(component)
    return ComponentSpec(
        component,
        folder,
        "T5EncoderModel",
        Library.TRANSFORMERS,
        (TensorSpec("token_ids", "int64", ("B", "T"), "input_ids"),),
        (TensorSpec("text_states", "float32", ("B", "T", "D*"), "last_hidden_state"),),
        tokenizer=folder.replace("text_encoder", "tokenizer"),
        longest_text=tokens,
        shared=(
            ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v"),
            ("DenseReluDense.wi_0", "DenseReluDense.wi_1"),
        ),
    )
