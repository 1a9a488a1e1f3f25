from pathlib import Path

import pytest

from latentc.errors import ModelError
from latentc.passes.catalogue import PASSES
from latentc.passes.fuse_lora import FuseLora
from latentc.passes.options import options_of, text_of_setting
from latentc.passes.quantize_int4 import QuantizeInt4


@pytest.mark.parametrize("pass_class", PASSES, ids=lambda entry: entry.name)
def test_every_option_has_help_and_the_shared_one_comes_last(pass_class: type[QuantizeInt4]) -> None:
    options = options_of(pass_class)
    assert [option.name for option in options if not option.help] == []
    assert options[-1].name == "optional"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (0.1, "0.1"),
        (("a", "b c"), '[a, "b c"]'),
        ("true", '"true"'),
        (".5", '".5"'),
        (Path("a/b.safetensors"), "a/b.safetensors"),
    ],
)
def test_text_of_a_setting(value: object, text: str) -> None:
    assert text_of_setting(value) == text


def test_a_path_counts_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "c").write_bytes(b"two")
    a, b, c = (FuseLora(tmp_path / name).identity() for name in "abc")
    assert (a == b, a == c) == (True, False)


def test_an_unreadable_path_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        FuseLora(tmp_path / "absent").identity()
    assert str(caught.value) == (
        f"{tmp_path}/absent: cannot be read: No such file or directory\nfix: check the path in the recipe"
    )


def test_identity_holds_every_option_and_the_version() -> None:
    assert QuantizeInt4(group=32).identity() == {
        "name": "quantize-int4",
        "version": 5,
        "options": {
            "group": 32,
            "rounding": "nearest",
            "sequential": False,
            "skip": [],
            "optional": False,
        },
    }
