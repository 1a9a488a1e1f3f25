"""Checkpoint keys: under which names the checkpoints of this world store one and the same weight."""

from __future__ import annotations

_OLD_ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
"""AutoencoderKL before diffusers 0.15 named its attention like this; Stable Diffusion 1.5 still does."""

_OLD_T5 = {"encoder.embed_tokens.weight": "shared.weight", "shared.weight": "encoder.embed_tokens.weight"}
"""T5 ties its embedding; a file holds it once, under either name."""

NEVER_BOUND = (
    "position_ids",  # stored by transformers before 4.31, computed from the config since
    "logit_scale",
    "rotary_emb.inv_freq",  # likewise
    "lm_head.weight",  # guesses the next word, which no text encoder is asked for
)
"""Ends of keys that a checkpoint may hold without any graph using them."""


def keys_of(class_name: str, weight: str) -> tuple[str, ...]:
    """The keys to look for, best first, for the weight that ``class_name`` names ``weight``."""
    keys = [weight]
    if class_name == "CLIPTextModel":
        keys.append(f"text_model.{weight}")  # before transformers 5
    elif class_name in ("Gemma2Model", "Qwen3Model"):
        keys.append(f"model.{weight}")  # of a file that can also write text
    elif class_name == "Qwen2_5_VLForConditionalGeneration":
        # before transformers 4.52
        keys.append(weight.replace("model.language_model.", "model.").replace("model.visual.", "visual."))
    elif class_name == "T5EncoderModel" and weight in _OLD_T5:
        keys.append(_OLD_T5[weight])
    elif class_name == "AutoencoderKL":
        old = weight
        for new_part, old_part in _OLD_ATTENTION.items():
            old = old.replace(new_part, old_part)
        if old != weight:
            keys.append(old)
    return tuple(keys)
