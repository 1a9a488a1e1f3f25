"""A tokenizer's padded length and pad id, read from its own files, without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from latentc.errors import ModelError
from latentc.runtime.manifest import Json, TokenizerEntry

if TYPE_CHECKING:
    from latentc.compiler.model_folder import ModelFolder

_LONGEST = 512
"""Tokens, where neither the family nor the encoder names a limit."""

_AGAIN = "copy or download the tokenizer again"


def tokenizer_entries(model: ModelFolder) -> dict[str, TokenizerEntry]:
    """The tokenizers of ``model`` as diffusers' pipelines use them, by folder name.

    Raises:
        ModelError: a length or a pad token cannot be found.
    """
    entries: dict[str, TokenizerEntry] = {}
    for spec in model.family.text_encoders:
        name, folder = spec.tokenizer, model.tokenizers[spec.tokenizer]
        config = _json_of(folder / "tokenizer_config.json")
        positions = model.components[spec.folder].config.get("max_position_embeddings")
        longest = spec.longest_text or (positions if isinstance(positions, int) else _LONGEST)
        entries[name] = TokenizerEntry(
            file=f"{name}/tokenizer.json",
            max_length=_max_length(folder, config, longest),
            pad_id=_pad_id(folder, config),
        )
    return entries


def _max_length(folder: Path, config: Mapping[str, Json], longest: int) -> int:
    length = config.get("model_max_length", longest)
    if isinstance(length, bool) or not isinstance(length, int | float) or length < 1:
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: model_max_length",
            f"is {length!r}, a number of tokens was expected",
            _AGAIN,
        )
    # tokenizers without a length write 1e30
    return int(min(length, longest))


def _pad_id(folder: Path, config: Mapping[str, Json]) -> int:
    token = config.get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    if not isinstance(token, str):
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: pad_token",
            f"is {token!r}, a token was expected",
            "name the token that fills short prompts; CLIP's is <|endoftext|>",
        )
    path = folder / "tokenizer.json"
    definition = _json_of(path)
    for added in _list(definition.get("added_tokens")):
        if isinstance(added, dict) and added.get("content") == token and isinstance(added.get("id"), int):
            return int(str(added["id"]))
    found = _in_vocabulary(definition.get("model"), token)
    if found is None:
        raise ModelError(str(path), f"has no token '{token}', which fills short prompts", _AGAIN)
    return found


def _in_vocabulary(model: Json, token: str) -> int | None:
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        number = vocabulary.get(token)
        return number if isinstance(number, int) else None
    pieces = [piece[0] for piece in _list(vocabulary) if isinstance(piece, list) and piece]
    return pieces.index(token) if token in pieces else None


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _json_of(path: Path) -> dict[str, Json]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(str(path), f"cannot be read: {error}", _AGAIN) from error
    if not isinstance(data, dict):
        raise ModelError(str(path), "is no JSON object", _AGAIN)
    return data
