from collections.abc import Callable
from pathlib import Path

import pytest

from latentc.errors import BundleError
from latentc.runtime.manifest import Json
from latentc.validation.typed_json import as_count, as_list, as_number, as_object, as_text, json_object


def test_what_fits_comes_through() -> None:
    assert (as_text("a"), as_number(2), as_count(0), as_list([]), as_object({})) == ("a", 2.0, 0, [], {})


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (as_text, 1, "a number where a text is expected"),
        (as_number, True, "true or false where a number is expected"),
        (as_number, None, "null where a number is expected"),
        (as_count, -1, "-1 where a whole number of 0 or more is expected"),
        (as_count, 1.5, "1.5 where a whole number of 0 or more is expected"),
        (as_list, {}, "an object where a list is expected"),
        (as_object, "a", "a text where an object is expected"),
    ],
)
def test_what_does_not_fit_is_named(read: Callable[[Json], object], value: Json, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        read(value)
    assert str(caught.value) == message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        json_object(tmp_path / "a.json", "look elsewhere")
    assert str(caught.value) == f"{tmp_path / 'a.json'}: does not exist\nfix: look elsewhere"
