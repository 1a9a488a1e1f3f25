"""Prompts to token ids with the bundle's own ``tokenizer.json``: the only file that knows ``tokenizers``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latentc.errors import BundleError, ToolMissing
from latentc.runtime.bundle import Bundle
from latentc.runtime.manifest import TokenizerEntry

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True)
class TokenIds:
    """Encoded prompts.

    Args:
        ids: [B, T] int64, T the tokenizer's padded length.
        unread: the end of each prompt that did not fit, in its own words; empty where all did.
    """

    ids: NDArray[np.int64]
    unread: tuple[str, ...]


class PromptTokenizer:
    """Encodes prompts as diffusers' pipelines do: special tokens added, cut and padded to one length.

    Args:
        name: for messages, such as ``tokenizer_2``.
        definition: contents of ``tokenizer.json``.
        entry: padded length and pad id.

    Raises:
        BundleError: the definition cannot be read, or has no token with the pad id.
        ToolMissing: tokenizers is not installed.
    """

    def __init__(self, name: str, definition: bytes, entry: TokenizerEntry) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise ToolMissing(
                "", "the package 'tokenizers' is not installed", "pip install tokenizers"
            ) from error
        try:
            tokenizer = tokenizers.Tokenizer.from_str(definition.decode("utf-8"))
        except Exception as error:
            # tokenizers raises plain Exception.
            raise BundleError(name, f"cannot be read: {error}", "build the bundle again") from error
        pad_token = tokenizer.id_to_token(entry.pad_id)
        if pad_token is None:
            raise BundleError(name, f"has no token with the pad id {entry.pad_id}", "build the bundle again")
        # Special tokens count towards the length, so a cut prompt keeps its end token.
        tokenizer.enable_truncation(entry.max_length)
        tokenizer.enable_padding(length=entry.max_length, pad_id=entry.pad_id, pad_token=pad_token)
        self._tokenizer = tokenizer

    def encode(self, prompts: Sequence[str]) -> TokenIds:
        """Token ids of ``prompts``, which may be empty strings but not an empty list."""
        encodings = self._tokenizer.encode_batch(list(prompts))
        unread = tuple(_unread(prompt, one) for prompt, one in zip(prompts, encodings, strict=True))
        return TokenIds(np.array([encoding.ids for encoding in encodings], dtype=np.int64), unread)


def _unread(prompt: str, encoding: Encoding) -> str:
    starts = [
        span[0]
        for rest in encoding.overflowing
        for span, special in zip(rest.offsets, rest.special_tokens_mask, strict=True)
        if not special
    ]
    return prompt[min(starts) :].strip() if starts else ""


def open_tokenizer(bundle: Bundle, name: str) -> PromptTokenizer:
    """The tokenizer ``name`` (``tokenizer`` or ``tokenizer_2``) of ``bundle``; raises BundleError."""
    entry = bundle.manifest.tokenizers.get(name)
    if entry is None:
        held = ", ".join(sorted(bundle.manifest.tokenizers)) or "none"
        raise BundleError(
            "manifest.json", f"this bundle has no {name} (it has {held})", "build the bundle again"
        )
    return PromptTokenizer(name, bundle.checked_bytes(entry.file), entry)
