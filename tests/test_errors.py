import inspect

from latentc import errors
from latentc.errors import LatentcError, ToolMissing, nearest


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, LatentcError):
            line = next(line for line in drawn.splitlines() if f" {name} " in f"{line} ")
            assert f" {kind.exit_code} " in line


def test_a_message_is_where_what_and_the_way_out() -> None:
    assert (
        str(LatentcError("file: key", "seen, wanted", "do this")) == "file: key: seen, wanted\nfix: do this"
    )
    assert str(LatentcError("", "seen")) == "seen"


def test_a_missing_package_names_its_extra() -> None:
    assert str(ToolMissing.package("nncf", "compile")) == (
        "the package 'nncf' is not installed\nfix: pip install 'latentc[compile]'"
    )


def test_nearest_names_one_or_all() -> None:
    assert nearest("stepz", ["steps", "seed"]) == "did you mean 'steps'?"
    assert nearest("zzz", ["b", "a"]) == "choose one of: a, b"
