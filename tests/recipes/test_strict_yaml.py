import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentc.errors import RecipeError
from latentc.recipes.strict_yaml import MAX_BYTES, Plain, plain_from_yaml, scalar_from_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("no", "no"),
        ("012", "012"),
        ("1:59:59", "1:59:59"),
        ("true", True),
        ("True", "True"),
        ("~", None),
        ("-3", -3),
        ("'20'", "20"),
        (".5", 0.5),
        ("2026-11-21", "2026-11-21"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: Plain) -> None:
    assert plain_from_yaml(f"key: {text}", "r.yaml") == {"key": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "r.yaml:2:1: has the key 'a' twice\nfix: keep one of them"),
        ("a: &x 1\n", "r.yaml:1:4: uses a YAML anchor\nfix: write the value out where it is needed"),
        ("a: !!int 1\n", "r.yaml:1:4: uses a YAML tag\nfix: write the value out where it is needed"),
        ("1: a\n", "r.yaml:1:1: has a key that is not a string\nfix: quote the key"),
        (
            "a: [1\n",
            "r.yaml:2:1: is not YAML: expected ',' or ']', but got '<stream end>'\nfix: mend the line",
        ),
    ],
)
def test_refuses_in_one_message(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plain_from_yaml(text, "r.yaml")
    assert str(caught.value) == message


def test_refuses_too_deep_too_large_and_bombs() -> None:
    with pytest.raises(RecipeError, match="nested more than 20 levels deep"):
        plain_from_yaml("[" * 30 + "]" * 30, "r.yaml")
    with pytest.raises(RecipeError, match="a recipe has at most"):
        plain_from_yaml("a: " + "x" * MAX_BYTES, "r.yaml")
    with pytest.raises(RecipeError, match=r"nested more than|is not YAML"):
        plain_from_yaml("[" * 3000, "r.yaml")


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none())
def test_python_numbers_survive_their_own_text(value: float | bool | None) -> None:
    text = "null" if value is None else str(value).lower()
    assert scalar_from_text(text) == value
