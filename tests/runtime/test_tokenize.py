"""Token ids are those of transformers' own tokenizers: padding, truncation, special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.small_bundle import write_small_bundle
from tests.tiny_models import TOKENS, write_tiny_flux

from latentc.errors import BundleError
from latentc.runtime.bundle import open_bundle
from latentc.runtime.manifest import TokenizerEntry
from latentc.runtime.tokenize import PromptTokenizer, open_tokenizer

PROMPTS = (
    "",
    "a red circle",
    "A small Green square above, the blue triangle!",
    "a red circle above a blue square and a green triangle on the left of the small circle",
)
T5_TOKENS = 12
UNREAD = {
    "tokenizer": (
        "",
        "",
        "are above, the blue triangle!",
        "e a blue square and a green triangle on the left of the small circle",
    ),
    "tokenizer_2": ("", "", ", the blue triangle!", "on the left of the small circle"),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, PromptTokenizer]]:
    """Theirs and ours, over the same files, for CLIP and T5."""
    folder = write_tiny_flux(tmp_path_factory.mktemp("flux"))
    clip = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    t5 = transformers.T5TokenizerFast.from_pretrained(folder / "tokenizer_2")
    return {
        name: (
            theirs,
            PromptTokenizer(
                name,
                (folder / name / "tokenizer.json").read_bytes(),
                TokenizerEntry(f"{name}/tokenizer.json", length, theirs.pad_token_id),
            ),
        )
        for name, theirs, length in (("tokenizer", clip, TOKENS), ("tokenizer_2", t5, T5_TOKENS))
    }


def _expected(theirs: Any, prompts: list[str], length: int) -> Any:
    return theirs(
        prompts, padding="max_length", max_length=length, truncation=True, return_tensors="np"
    ).input_ids


@pytest.mark.parametrize(("name", "length"), [("tokenizer", TOKENS), ("tokenizer_2", T5_TOKENS)])
def test_same_ids(pairs: dict[str, tuple[Any, PromptTokenizer]], name: str, length: int) -> None:
    theirs, ours = pairs[name]
    tokens = ours.encode(PROMPTS)
    assert tokens.ids.dtype.name == "int64"
    assert tokens.ids.tolist() == _expected(theirs, list(PROMPTS), length).tolist()
    # The last prompts are too long, and still end in the end token.
    assert tokens.unread == UNREAD[name]
    for prompt, unread in zip(PROMPTS, tokens.unread, strict=True):
        if unread:
            assert len(theirs(prompt.removesuffix(unread)).input_ids) == length
    assert tokens.ids[-1, -1] == theirs.eos_token_id


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40))
@pytest.mark.parametrize(("name", "length"), [("tokenizer", TOKENS), ("tokenizer_2", T5_TOKENS)])
def test_same_ids_for_any_text(
    pairs: dict[str, tuple[Any, PromptTokenizer]], name: str, length: int, text: str
) -> None:
    theirs, ours = pairs[name]
    assert ours.encode([text]).ids.tolist() == _expected(theirs, [text], length).tolist()


def test_a_bundles_tokenizer(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    assert open_tokenizer(bundle, "tokenizer").encode(["a red circle"]).ids.tolist() == [
        [1, 3, 4, 6, 2, 0, 0, 0]
    ]
    with pytest.raises(BundleError, match=r"this bundle has no tokenizer_2 \(it has tokenizer\)"):
        open_tokenizer(bundle, "tokenizer_2")


def test_a_definition_that_is_none() -> None:
    with pytest.raises(BundleError, match="tokenizer: cannot be read"):
        PromptTokenizer("tokenizer", b"{}", TokenizerEntry("t.json", 8, 0))


def test_a_pad_id_without_a_token(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "bundle")
    data = (tmp_path / "bundle" / "tokenizer" / "tokenizer.json").read_bytes()
    with pytest.raises(BundleError, match="has no token with the pad id 99"):
        PromptTokenizer("tokenizer", data, TokenizerEntry("t.json", 8, 99))
