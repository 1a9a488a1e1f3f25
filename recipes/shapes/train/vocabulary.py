"""The two tokenizers, learned from the grammar's own sentences: CLIP's byte pairs and T5's word pieces."""

from __future__ import annotations

import json
import string

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer, T5TokenizerFast

from latentc.recipes.shapes.caption import caption
from latentc.recipes.shapes.scene import every_scene

MAX_TOKENS = 24
"""Length T that every prompt is padded to; the longest caption has 19 tokens with its end marks."""

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's form, in which each word of the grammar is one token."""
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer = Lowercase()
    words = Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True)
    learner.pre_tokenizer = Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = BpeTrainer(vocab_size=100_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(_sentences(), trainer)
    learned = learner.to_str()
    merges = [tuple(pair) for pair in _merges(learned)]
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *(a + b for a, b in merges)]
    pieces = [*dict.fromkeys(pieces), _BEGIN, _END]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def t5_tokenizer() -> T5TokenizerFast:
    """A unigram tokenizer in T5's form, with a piece for each word of the grammar and for each letter."""
    words = sorted({word for sentence in _sentences() for word in sentence.replace(",", " ,").split()})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in words if word != ","]
    pieces += [(letter, -8.0) for letter in [",", *string.ascii_lowercase]]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)


def _sentences() -> list[str]:
    """A sample of captions in which every word of the grammar occurs."""
    return [caption(scene, seed) for seed, scene in enumerate(every_scene()) if seed % 7 == 0 or seed < 3000]


def _merges(learned: str) -> list[list[str]]:
    merges: list[list[str]] = json.loads(learned)["model"]["merges"]
    return merges
