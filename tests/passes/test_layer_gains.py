"""Gains are read back as written, and nothing else is taken for gains."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentc.errors import PassError
from latentc.passes.layer_gains import GAINS_FILE, read_gains, write_gains


def test_back_again(tmp_path: Path) -> None:
    write_gains({"b": 0.5, "a": 0.0}, tmp_path)
    assert read_gains("allocate", tmp_path) == {"a": 0.0, "b": 0.5}


def test_without_a_folder() -> None:
    with pytest.raises(PassError) as caught:
        read_gains("allocate", None)
    assert str(caught.value) == (
        "allocate: needs to know how sensitive each layer is, and was not told\nfix: run it in a recipe"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as gains"),
        ('{"w": "much"}', "cannot be read as gains"),
        ('{"w": -1}', "'w': is -1.0, wanted a number from 0 up"),
        ('{"w": NaN}', "'w': is nan, wanted a number from 0 up"),
    ],
)
def test_what_is_no_gains(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / GAINS_FILE).write_text(text)
    with pytest.raises(PassError) as caught:
        read_gains("allocate", tmp_path)
    assert said in str(caught.value)
    assert "fix: build the sensitivity step again" in str(caught.value)
