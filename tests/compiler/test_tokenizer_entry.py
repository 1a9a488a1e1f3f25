from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentc.compiler.model_folder import open_model
from latentc.compiler.tokenizer_entry import tokenizer_entries
from latentc.errors import ModelError


def test_entries_agree_with_transformers(tiny_stable_diffusion: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_stable_diffusion / "tokenizer")
    entry = tokenizer_entries(open_model(tiny_stable_diffusion, read_values=False))["tokenizer"]
    assert entry.file == "tokenizer/tokenizer.json"
    assert (entry.max_length, entry.pad_id) == (tokenizer.model_max_length, tokenizer.pad_token_id)


def test_second_tokenizer_agrees_too(tiny_flux: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_flux / "tokenizer_2")
    entry = tokenizer_entries(open_model(tiny_flux, read_values=False))["tokenizer_2"]
    assert (entry.max_length, entry.pad_id) == (tokenizer.model_max_length, tokenizer.pad_token_id)


def with_config(model: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(model, folder)
    path = folder / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_no_length_takes_the_encoders(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    model = with_config(tiny_stable_diffusion, tmp_path / "model", model_max_length=10**30)
    assert tokenizer_entries(open_model(model, read_values=False))["tokenizer"].max_length == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_max_length": "77"}, "model_max_length: is '77', a number of tokens was expected"),
        ({"pad_token": None}, "pad_token: is None, a token was expected"),
        ({"pad_token": "<none>"}, "has no token '<none>', which fills short prompts"),
    ],
)
def test_bad_configs(
    tiny_stable_diffusion: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    model = with_config(tiny_stable_diffusion, tmp_path / "model", **changes)
    with pytest.raises(ModelError, match=message):
        tokenizer_entries(open_model(model, read_values=False))
